#include "../torch/dispatch.h"
#include "../torch/kmeans_checks.h"
#include "seeding.h"

namespace deepclust::cuda {

// x [.., N, d] -> the indices of n_clusters distinct points [.., n_clusters], in the order drawn.
Tensor kmeans_plusplus(const Tensor& x, int64_t n_clusters, int64_t seed, const std::optional<Tensor>& weights) {
  check_points("kmeans_plusplus", x);
  check_cluster_count("kmeans_plusplus", x, n_clusters);
  check_weights("kmeans_plusplus", x, weights);
  if (weights.has_value()) check_same_device("kmeans_plusplus", "x", x, "sample_weight", *weights);
  const DeviceScope scope(x);
  refuse_capture("kmeans_plusplus", scope.stream());
  const int64_t batch = batch_of(x, 2), n = x.size(x.dim() - 2), d = x.size(x.dim() - 1);
  const Tensor points = dense(x), seeds = empty(sizes_with(x, 2, {n_clusters}), ScalarType::Long, x);
  const Tensor bad_row = row_flags(1, x);
  find_bad_rows(dtype_of(x), points.data_ptr(), batch * n, d, nullptr,
                static_cast<RowFlag*>(bad_row.mutable_data_ptr()), scope.stream());
  check_launch("kmeans_plusplus");
  if (const int64_t row = to_host(bad_row)[0]; row >= 0) refuse_row("kmeans_plusplus", "x", row % n);
  const Tensor centroids = empty({batch, n_clusters, d}, accumulator_dtype(x.scalar_type()), x);
  const std::optional<Tensor> own = dense(weights);
  const SeedingPlan plan({batch, n, d, n_clusters, dtype_of(x)}, weights_of(own));
  draw_all_seeds(plan, points, seed, seeds, centroids, scope.stream());
  return seeds;
}

}  // namespace deepclust::cuda

STABLE_TORCH_LIBRARY_IMPL(deepclust, CUDA, library) {
  library.impl("kmeans_plusplus", TORCH_BOX(&deepclust::cuda::kmeans_plusplus));
}
