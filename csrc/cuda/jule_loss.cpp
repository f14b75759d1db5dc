#include "jule_loss.h"

#include <tuple>

#include "../torch/cuda_arguments.h"
#include "../torch/jule_loss_checks.h"

namespace deepclust::cuda {

// (z [B, d], labels [B], seed []) -> loss [], dL/dz [B, d], both in the accumulator's dtype.
std::tuple<Tensor, Tensor> jule_loss(const Tensor& z, const Tensor& labels, const Tensor& seed, double gamma,
                                     double margin, int64_t n_negatives) {
  check_jule_loss(z, labels, seed, gamma, margin, n_negatives);
  check_same_device("jule_loss", "z", z, "labels", labels);
  check_same_device("jule_loss", "z", z, "seed", seed);
  const DeviceScope scope(z);
  const ScalarType dtype = accumulator_dtype(z.scalar_type());
  Tensor loss = empty({}, dtype, z), z_grad = empty({z.size(0), z.size(1)}, dtype, z);
  const JulePlan plan{z.size(0), z.size(1), dtype_of(z), n_negatives};
  const Tensor rows = dense(z), label = dense(labels), memory = workspace(plan.workspace_bytes(), z);
  jule_loss_forward(plan, rows.data_ptr(), static_cast<const int64_t*>(label.data_ptr()),
                    static_cast<const int64_t*>(seed.data_ptr()), gamma, margin, memory.mutable_data_ptr(),
                    loss.mutable_data_ptr(), z_grad.mutable_data_ptr(), scope.stream());
  check_launch("jule_loss");
  return {loss, z_grad};
}

}  // namespace deepclust::cuda

STABLE_TORCH_LIBRARY_IMPL(deepclust, CUDA, library) {
  library.impl("jule_loss", TORCH_BOX(&deepclust::cuda::jule_loss));
}
