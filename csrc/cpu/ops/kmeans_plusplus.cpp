#include "seeding.h"

namespace deepclust::cpu {

// x [.., N, d] -> the indices of n_clusters distinct points [.., n_clusters], in the order drawn.
Tensor kmeans_plusplus(const Tensor& x, int64_t n_clusters, int64_t seed, const std::optional<Tensor>& weights) {
  check_points("kmeans_plusplus", x);
  check_cluster_count("kmeans_plusplus", x, n_clusters);
  check_weights("kmeans_plusplus", x, weights);
  const Matrices points(x);
  const Weightings weightings("kmeans_plusplus", weights);
  Tensor seeds = empty(sizes_with(x, 2, {n_clusters}), ScalarType::Long, x);
  dispatch_accumulator(accumulator_dtype(x.scalar_type()), [&](auto zero) {
    using T = decltype(zero);
    for (int64_t b = 0; b < points.batch; ++b) {
      const ReadyPoints<T> ready("kmeans_plusplus", points.matrix<T>(b), points.rows, points.cols, n_clusters);
      draw_seeds(ready, weightings.row(b), seed, b, n_clusters,
                 static_cast<int64_t*>(seeds.mutable_data_ptr()) + b * n_clusters);
    }
  });
  return seeds;
}

}  // namespace deepclust::cpu

STABLE_TORCH_LIBRARY_IMPL(deepclust, CPU, library) {
  library.impl("kmeans_plusplus", TORCH_BOX(&deepclust::cpu::kmeans_plusplus));
}
