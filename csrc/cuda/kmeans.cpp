#include "kmeans.h"

#include <algorithm>
#include <optional>
#include <tuple>

#include "../torch/dispatch.h"
#include "../torch/kmeans_checks.h"
#include "kmeans_filter.h"
#include "knn.h"
#include "seeding.h"

namespace deepclust::cuda {
namespace {

// Launches go ahead of the device; after so many iterations it is worth a look whether any matrix still moves.
constexpr int64_t kIterationsAtOnce = 32;

struct Flags {
  Tensor tensor;

  explicit Flags(const Tensor& like) : tensor(row_flags(sizeof(KMeansFlags) / sizeof(RowFlag), like)) {}
  KMeansFlags* on_device() const { return static_cast<KMeansFlags*>(tensor.mutable_data_ptr()); }
  std::vector<int64_t> read() const { return to_host(tensor); }
};

}  // namespace

// (x [.., N, d], start [.., K, d] or none, weights [.., N] or none) -> centroids [.., K, d], labels [.., N], inertia
// [..], n_iter [..], history [.., max_iter, 3] in float64 (objective, moved, imbalance), empty [.., max_iter] in int64.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> kmeans(const Tensor& x, const std::optional<Tensor>& start,
                                                                  int64_t n_clusters, int64_t seed, int64_t max_iter,
                                                                  double tol, int64_t empty_rule, bool spherical,
                                                                  const std::optional<Tensor>& weights) {
  check_kmeans(x, start, n_clusters, max_iter, tol, empty_rule);
  check_weights("kmeans", x, weights);
  if (start.has_value()) check_same_device("kmeans", "x", x, "centroids", *start);
  if (weights.has_value()) check_same_device("kmeans", "x", x, "sample_weight", *weights);
  const DeviceScope scope(x);
  refuse_capture("kmeans", scope.stream());
  const ScalarType dtype = accumulator_dtype(x.scalar_type());
  const int64_t batch = batch_of(x, 2), n = x.size(x.dim() - 2), d = x.size(x.dim() - 1);
  Tensor centroids = empty(sizes_with(x, 2, {n_clusters, d}), dtype, x);
  Tensor labels = empty(sizes_with(x, 1, {}), ScalarType::Long, x);
  Tensor inertia = empty(sizes_with(x, 2, {}), dtype, x);
  Tensor n_iter = empty(sizes_with(x, 2, {}), ScalarType::Long, x);
  Tensor history = empty(sizes_with(x, 2, {max_iter, 3}), ScalarType::Double, x);
  Tensor empties = empty(sizes_with(x, 2, {max_iter}), ScalarType::Long, x);
  if (batch == 0) return {centroids, labels, inertia, n_iter, history, empties};

  const std::optional<Tensor> own = dense(weights);
  const AssignPlan sizes{batch, n, d, n_clusters, dtype_of(x)};
  const bool filtered = has_tensor_cores() && CentroidFilter::serves(sizes);
  const KMeansPlan plan(sizes, max_iter, tol, empty_rule, spherical, weights_of(own), filtered);
  const Tensor points = dense(x), memory = workspace(plan.workspace_bytes(), x);
  const KMeansOutputs out{centroids.mutable_data_ptr(),
                          static_cast<int64_t*>(labels.mutable_data_ptr()),
                          inertia.mutable_data_ptr(),
                          static_cast<int64_t*>(n_iter.mutable_data_ptr()),
                          static_cast<double*>(history.mutable_data_ptr()),
                          static_cast<int64_t*>(empties.mutable_data_ptr())};
  const Flags flags(x);
  start_kmeans(plan, points.data_ptr(), out, memory.mutable_data_ptr(), flags.on_device(), scope.stream());
  if (start.has_value()) {
    torch::stable::copy_(centroids, *start);
    const DType centroid_dtype = plan.dtype == DType::kDouble ? DType::kDouble : DType::kFloat;
    find_bad_rows(centroid_dtype, out.centroids, batch * n_clusters, d, nullptr, &flags.on_device()->bad_start,
                  scope.stream());
  }
  check_launch("kmeans");
  // An error cannot be raised without a wait for the device, and nothing below is made for such rows.
  const std::vector<int64_t> found = flags.read();
  if (found[0] >= 0) refuse_row("kmeans", "x", found[0] % n);
  if (found[1] >= 0) refuse_row("kmeans", "centroids", found[1] % n_clusters);
  if (!start.has_value()) {
    const Tensor seeds = empty({batch, n_clusters}, ScalarType::Long, x);
    draw_all_seeds(SeedingPlan(plan, plan.weights), points, seed, seeds, centroids, scope.stream());
  }
  for (int64_t first = 0; first < max_iter; first += kIterationsAtOnce) {
    if (first > 0 && flags.read()[2] == 0) break;
    const int64_t last = std::min(max_iter, first + kIterationsAtOnce);
    iterate_kmeans(plan, points.data_ptr(), out, first, last, memory.mutable_data_ptr(), flags.on_device(),
                   scope.stream());
  }
  finish_kmeans(plan, points.data_ptr(), out, memory.mutable_data_ptr(), scope.stream());
  check_launch("kmeans");
  return {centroids, labels, inertia, n_iter, history, empties};
}

}  // namespace deepclust::cuda

STABLE_TORCH_LIBRARY_IMPL(deepclust, CUDA, library) {
  library.impl("kmeans", TORCH_BOX(&deepclust::cuda::kmeans));
}
