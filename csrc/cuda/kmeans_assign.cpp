#include "kmeans_assign.h"

#include <optional>
#include <tuple>

#include "../torch/cuda_arguments.h"
#include "../torch/dispatch.h"
#include "../torch/kmeans_checks.h"
#include "kmeans_filter.h"
#include "knn.h"

namespace deepclust::cuda {

// (x [.., N, d], centroids [.., K, d]) -> labels [.., N] in int64, squared distances [.., N] in the accumulator's
// dtype.
std::tuple<Tensor, Tensor> kmeans_assign(const Tensor& x, const Tensor& centroids) {
  check_points("kmeans_assign", x);
  check_centroids("kmeans_assign", x, centroids);
  check_same_device("kmeans_assign", "x", x, "centroids", centroids);
  const DeviceScope scope(x);
  refuse_capture("kmeans_assign", scope.stream());
  Tensor labels = empty(sizes_with(x, 1, {}), ScalarType::Long, x);
  Tensor distances = empty(sizes_with(x, 1, {}), accumulator_dtype(x.scalar_type()), x);
  const int64_t n = x.size(x.dim() - 2), clusters = centroids.size(x.dim() - 2);
  const AssignPlan plan{batch_of(x, 2), n, x.size(x.dim() - 1), clusters, dtype_of(x)};
  const Tensor points = dense(x), centres = dense(as_accumulator(centroids));
  const Tensor flags = row_flags(2, x);
  std::optional<Tensor> memory;
  std::optional<CentroidFilter> filter;
  if (has_tensor_cores() && CentroidFilter::serves(plan)) {
    memory = workspace(CentroidFilter(plan, nullptr).memory.bytes(), x);
    filter.emplace(plan, memory->mutable_data_ptr());
  }
  kmeans_assign(plan, points.data_ptr(), centres.data_ptr(), static_cast<int64_t*>(labels.mutable_data_ptr()),
                distances.mutable_data_ptr(), static_cast<RowFlag*>(flags.mutable_data_ptr()),
                filter ? &*filter : nullptr, scope.stream());
  check_launch("kmeans_assign");
  // The one wait for the device: an error cannot be raised without it.
  const std::vector<int64_t> bad_rows = to_host(flags);
  if (bad_rows[1] >= 0) refuse_row("kmeans_assign", "centroids", bad_rows[1] % clusters);
  if (bad_rows[0] >= 0) refuse_row("kmeans_assign", "x", bad_rows[0] % n);
  return {labels, distances};
}

}  // namespace deepclust::cuda

STABLE_TORCH_LIBRARY_IMPL(deepclust, CUDA, library) {
  using Assign =
      std::tuple<deepclust::Tensor, deepclust::Tensor> (*)(const deepclust::Tensor&, const deepclust::Tensor&);
  library.impl("kmeans_assign", TORCH_BOX(static_cast<Assign>(&deepclust::cuda::kmeans_assign)));
}
