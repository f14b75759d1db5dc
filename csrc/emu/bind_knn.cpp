// knn's launches on numpy arrays; bfloat16 as uint16.
#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>
#include <string>

#include "../cuda/knn.cu"
#include "arrays.h"
#include "bind.h"
#include "stored.h"

namespace deepclust::emu {
namespace {

cuda::Metric metric_of(const std::string& name) {
  if (name == "euclidean") return cuda::Metric::kEuclidean;
  if (name == "cosine") return cuda::Metric::kCosine;
  if (name == "inner") return cuda::Metric::kInner;
  throw py::value_error("emu: 'metric' must be 'euclidean', 'cosine' or 'inner', got '" + name + "'");
}

// x [batch, n, d], query [batch, q, d] or None -> values, indices [batch, n or q, k]; an error as the op's where a
// row is not finite. strip_bytes: what one strip of costs may take, the kernels' own choice if 0. filter: None, or how
// many tiles the first stage of the tensor-core filter takes and what its entries may take, which then serves at any
// size; then a third result: how many rows it left to the plain kernels, in the last item.
py::tuple knn(const py::array& x, const std::optional<py::array>& query, int64_t k, const std::string& metric,
              int64_t strip_bytes, const std::optional<std::pair<int64_t, int64_t>>& filter) {
  const py::array& asked = query ? *query : x;
  const int64_t strip = strip_bytes > 0 ? strip_bytes : cuda::KnnPlan::kStripBytes;
  const int64_t batch = x.shape(0), n = x.shape(1), q = asked.shape(1), d = x.shape(2);
  const cuda::Metric rule = metric_of(metric);
  const cuda::KnnPlan plan = filter
                                 ? cuda::KnnPlan(batch, n, q, d, k, !query, rule, dtype_of(x), strip,
                                                 cuda::KnnFilterPlan(n, q, d, k, !query, filter->first, filter->second))
                                 : cuda::KnnPlan(batch, n, q, d, k, !query, rule, dtype_of(x), false, strip);
  return with_stored(plan.dtype, [&](auto zero) -> py::tuple {
    using E = decltype(zero);
    using T = accumulator_t<E>;
    const auto points = to_device<E>(x, "x"), queries = to_device<E>(asked, "query");
    const void* const from = query ? queries.get() : nullptr;
    const DeviceBuffer<unsigned char> workspace(static_cast<int64_t>(plan.workspace_bytes()));
    const int64_t size = plan.batch * plan.queries * k;
    const DeviceBuffer<T> values(size);
    const DeviceBuffer<int64_t> indices(size);
    const cuda::KnnBadRow bad = cuda::knn_prepare(plan, points.get(), from, workspace.get(), nullptr);
    if (bad.arg != nullptr)
      throw std::runtime_error("knn: '" + std::string(bad.arg) + "' must be finite, got NaN or infinity in row " +
                               std::to_string(bad.row) + "; drop or mend such rows");
    cuda::knn_search(plan, points.get(), from, workspace.get(), values.get(), indices.get(), nullptr);
    const std::vector<py::ssize_t> shape{plan.batch, plan.queries, k};
    if (!plan.filtered) return py::make_tuple(to_numpy(values, shape), to_numpy(indices, shape));
    const std::size_t rows = cuda::KnnSpace<float>(plan, nullptr).memory.bytes();
    const cuda::FilterSpace space(plan.filter, workspace.get() + rows);
    return py::make_tuple(to_numpy(values, shape), to_numpy(indices, shape), *space.again_count);
  });
}

}  // namespace

void bind_knn(py::module_& module) {
  module.def("knn", &knn, py::arg("x"), py::arg("query"), py::arg("k"), py::arg("metric"), py::arg("strip_bytes") = 0,
             py::arg("filter") = std::nullopt);
}

}  // namespace deepclust::emu
