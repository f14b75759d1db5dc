#include "seeding.h"

namespace deepclust::cpu {

// x [.., N, d] -> the indices of n_clusters distinct points [.., n_clusters], in the order drawn.
Tensor kmeans_plusplus(const Tensor& x, int64_t n_clusters, int64_t seed) {
  check_points("kmeans_plusplus", x);
  const Matrices points(x);
  STD_TORCH_CHECK(n_clusters >= 1 && n_clusters <= points.rows && n_clusters < (int64_t{1} << 31),
                  "kmeans_plusplus: 'n_clusters' must be between 1 and x's ", points.rows, " rows, got ", n_clusters);
  Tensor seeds = empty(sizes_with(x, 2, {n_clusters}), ScalarType::Long, x);
  dispatch_accumulator(accumulator_dtype(x.scalar_type()), [&](auto zero) {
    using T = decltype(zero);
    for (int64_t b = 0; b < points.batch; ++b) {
      const ReadyPoints<T> ready("kmeans_plusplus", points.matrix<T>(b), points.rows, points.cols);
      draw_seeds(ready, seed, b, n_clusters, static_cast<int64_t*>(seeds.mutable_data_ptr()) + b * n_clusters);
    }
  });
  return seeds;
}

}  // namespace deepclust::cpu

STABLE_TORCH_LIBRARY_IMPL(deepclust, CPU, library) {
  library.impl("kmeans_plusplus", TORCH_BOX(&deepclust::cpu::kmeans_plusplus));
}
