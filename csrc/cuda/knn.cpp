#include "knn.h"

#include <tuple>

#include "../torch/cuda_arguments.h"
#include "../torch/dispatch.h"
#include "../torch/knn_checks.h"

namespace deepclust::cuda {
namespace {

Metric metric_of(const std::string& name) {
  return name == "cosine" ? Metric::kCosine : name == "inner" ? Metric::kInner : Metric::kEuclidean;
}

KnnPlan plan_of(const Tensor& x, const Tensor& rows, bool graph, int64_t k, const std::string& metric) {
  int64_t batch = 1;
  for (int64_t i = 0; i + 2 < x.dim(); ++i) batch *= x.size(i);
  const int64_t points = x.size(x.dim() - 2), queries = rows.size(rows.dim() - 2), depth = x.size(x.dim() - 1);
  return KnnPlan(batch, points, queries, depth, k, graph, metric_of(metric), dtype_of(x), has_tensor_cores());
}

}  // namespace

// (x [.., n, d], query [.., q, d] or none) -> values, indices [.., n or q, k]. Waits for the pass that looks for NaN
// and infinity; after it only the filter waits, once a batch item, to hear how many rows it leaves.
std::tuple<Tensor, Tensor> knn(const Tensor& x, const std::optional<Tensor>& query, int64_t k,
                               const std::string& metric) {
  check_knn(x, query, k, metric);
  if (query) check_same_device("knn", "x", x, "query", *query);
  const DeviceScope scope(x);
  refuse_capture("knn", scope.stream());
  const Tensor& rows = query ? *query : x;
  const std::vector<int64_t> sizes = knn_sizes(rows, k);
  Tensor values = empty(sizes, accumulator_dtype(x.scalar_type()), x), indices = empty(sizes, ScalarType::Long, x);
  if (values.numel() == 0) return {values, indices};

  const KnnPlan plan = plan_of(x, rows, !query, k, metric);
  DC_CHECK(plan.fits_a_grid(), "knn", "x", "of fewer batch items or points: 2^31 blocks of threads are not enough");
  const Tensor points = dense(x), memory = workspace(plan.workspace_bytes(), x);
  const std::optional<Tensor> asked = query ? std::optional<Tensor>(dense(*query)) : std::nullopt;
  const void* const queries = asked ? asked->data_ptr() : nullptr;
  const KnnBadRow bad = knn_prepare(plan, points.data_ptr(), queries, memory.mutable_data_ptr(), scope.stream());
  check_launch("knn");
  check_finite_row(bad.arg, bad.row);
  knn_search(plan, points.data_ptr(), queries, memory.mutable_data_ptr(), values.mutable_data_ptr(),
             static_cast<int64_t*>(indices.mutable_data_ptr()), scope.stream());
  check_launch("knn");
  return {values, indices};
}

}  // namespace deepclust::cuda

STABLE_TORCH_LIBRARY_IMPL(deepclust, CUDA, library) {
  library.impl("knn", TORCH_BOX(&deepclust::cuda::knn));
}
