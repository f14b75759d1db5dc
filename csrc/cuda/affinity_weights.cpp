#include "affinity_weights.h"

#include <tuple>

#include "../torch/cuda_arguments.h"
#include "../torch/graph_checks.h"

namespace deepclust::cuda {

// squared_distances [n, k] -> weights [n, k] and sigma2 [], in their dtype.
std::tuple<Tensor, Tensor> weights_of(const Tensor& squared_distances, double a) {
  check_affinity_weights(squared_distances, a);
  const DeviceScope scope(squared_distances);
  refuse_capture("affinity_weights", scope.stream());
  const Tensor distances = dense(squared_distances);
  const AffinityPlan plan(distances.numel(), dtype_of(distances));
  Tensor weights = empty({distances.size(0), distances.size(1)}, distances.scalar_type(), distances);
  Tensor sigma2 = empty({}, distances.scalar_type(), distances);
  const Tensor memory = workspace(plan.workspace_bytes(), distances), bad = empty({1}, ScalarType::Long, distances);
  affinity_weights(plan, distances.data_ptr(), a, memory.mutable_data_ptr(), weights.mutable_data_ptr(),
                   sigma2.mutable_data_ptr(), static_cast<int64_t*>(bad.mutable_data_ptr()), scope.stream());
  check_launch("affinity_weights");
  check_affinity_scale(to_host(bad)[0] == 0);
  return {weights, sigma2};
}

}  // namespace deepclust::cuda

STABLE_TORCH_LIBRARY_IMPL(deepclust, CUDA, library) {
  library.impl("affinity_weights", TORCH_BOX(&deepclust::cuda::weights_of));
}
