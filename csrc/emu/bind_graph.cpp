// The launches of affinity_weights and initial_clusters on numpy arrays.
#include "../cuda/affinity_weights.cu"
#include "../cuda/initial_clusters.cu"
#include "arrays.h"
#include "bind.h"
#include "stored.h"

namespace deepclust::emu {
namespace {

template <typename T>
py::tuple weights_as(const py::array& squared_distances, double a, DType dtype) {
  const cuda::AffinityPlan plan(squared_distances.size(), dtype);
  const auto distances = to_device<T>(squared_distances, "squared_distances");
  const DeviceBuffer<unsigned char> workspace(static_cast<int64_t>(plan.workspace_bytes()));
  const DeviceBuffer<T> weights(plan.count), sigma2(1);
  const DeviceBuffer<int64_t> bad(1);
  cuda::affinity_weights(plan, distances.get(), a, workspace.get(), weights.get(), sigma2.get(), bad.get(), nullptr);
  return py::make_tuple(to_numpy(weights, shape_of(squared_distances)), to_numpy(sigma2), *bad.get());
}

// squared_distances [n, k], float32 or float64 -> weights [n, k], sigma2 [1], and whether it is not finite.
py::tuple affinity_weights(const py::array& squared_distances, double a) {
  const DType dtype = dtype_of(squared_distances);
  return dtype == DType::kDouble ? weights_as<double>(squared_distances, a, dtype)
                                 : weights_as<float>(squared_distances, a, dtype);
}

// indices [n, k] -> labels [n], and the first row whose entry is no point, or -1.
py::tuple initial_clusters(const py::array& indices) {
  const cuda::ComponentsPlan plan(indices.shape(0), indices.shape(1));
  const auto neighbours = to_device<int64_t>(indices, "indices");
  const DeviceBuffer<unsigned char> workspace(static_cast<int64_t>(plan.workspace_bytes()));
  const DeviceBuffer<int64_t> labels(plan.n);
  const DeviceBuffer<unsigned long long> bad_row(1);
  cuda::initial_clusters(plan, neighbours.get(), workspace.get(), labels.get(), bad_row.get(), nullptr);
  return py::make_tuple(to_numpy(labels), static_cast<int64_t>(*bad_row.get()));
}

}  // namespace

void bind_graph(py::module_& module) {
  module.def("affinity_weights", &affinity_weights);
  module.def("initial_clusters", &initial_clusters);
}

}  // namespace deepclust::emu
