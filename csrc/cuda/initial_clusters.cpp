#include "initial_clusters.h"

#include "../torch/cuda_arguments.h"
#include "../torch/graph_checks.h"

namespace deepclust::cuda {

// indices [n, k] -> labels [n].
Tensor components(const Tensor& indices) {
  check_neighbour_indices("initial_clusters", indices);
  const DeviceScope scope(indices);
  refuse_capture("initial_clusters", scope.stream());
  const Tensor neighbours = dense(indices);
  const int64_t n = neighbours.size(0), k = neighbours.size(1);
  const ComponentsPlan plan(n, k);
  Tensor labels = empty({n}, ScalarType::Long, neighbours);
  const Tensor memory = workspace(plan.workspace_bytes(), neighbours), bad_row = row_flags(1, neighbours);
  initial_clusters(plan, static_cast<const int64_t*>(neighbours.data_ptr()), memory.mutable_data_ptr(),
                   static_cast<int64_t*>(labels.mutable_data_ptr()),
                   static_cast<unsigned long long*>(bad_row.mutable_data_ptr()), scope.stream());
  check_launch("initial_clusters");
  if (const int64_t row = to_host(bad_row)[0]; row >= 0)
    check_neighbour("initial_clusters", to_host(neighbours)[static_cast<std::size_t>(row * k)], n, row);
  return labels;
}

}  // namespace deepclust::cuda

STABLE_TORCH_LIBRARY_IMPL(deepclust, CUDA, library) {
  library.impl("initial_clusters", TORCH_BOX(&deepclust::cuda::components));
}
