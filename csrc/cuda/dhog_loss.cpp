#include "dhog_loss.h"

#include "../torch/cuda_arguments.h"
#include "../torch/dhog_loss_checks.h"

namespace deepclust::cuda {
namespace {

DhogPlan plan_of(const Tensor& probs, bool pooled) {
  return DhogPlan(probs.size(0), probs.size(1), probs.size(2), probs.size(3), pooled, dtype_of(probs));
}

}  // namespace

// probs [A, H, n, C] -> the loss, its parts, and the gradients of the joints.
DhogResults dhog_loss(const Tensor& probs, double alpha, bool pooled, bool push_by_index, double lamb) {
  check_dhog_probs(probs);
  const DeviceScope scope(probs);
  const DhogPlan plan = plan_of(probs, pooled);
  DhogResults results = empty_dhog_results(probs, plan.pairs);
  const Tensor rows = dense(probs), memory = workspace(plan.workspace_bytes(), probs);
  dhog_loss_forward(plan, rows.data_ptr(), memory.mutable_data_ptr(), outputs_of(results, alpha, push_by_index, lamb),
                    scope.stream());
  check_launch("dhog_loss");
  return results;
}

// grad_loss [] -> the gradient of probs, in its dtype.
Tensor dhog_loss_backward(const Tensor& grad_loss, const Tensor& probs, const Tensor& pull_grad,
                          const Tensor& push_grad, bool pooled) {
  check_dhog_probs(probs);
  const DhogPlan plan = plan_of(probs, pooled);
  check_dhog_backward(grad_loss, probs, pull_grad, push_grad, plan.pairs);
  check_same_device("dhog_loss_backward", "probs", probs, "grad_loss", grad_loss);
  check_same_device("dhog_loss_backward", "probs", probs, "pull_grad", pull_grad);
  check_same_device("dhog_loss_backward", "probs", probs, "push_grad", push_grad);
  const DeviceScope scope(probs);
  Tensor grad = empty(std::vector<int64_t>(probs.sizes().begin(), probs.sizes().end()), probs.scalar_type(), probs);
  const Tensor rows = dense(probs);
  dhog_loss_backward(plan, grad_loss.data_ptr(), rows.data_ptr(), pull_grad.data_ptr(), push_grad.data_ptr(),
                     grad.mutable_data_ptr(), scope.stream());
  check_launch("dhog_loss_backward");
  return grad;
}

}  // namespace deepclust::cuda

STABLE_TORCH_LIBRARY_IMPL(deepclust, CUDA, library) {
  using Backward = deepclust::Tensor (*)(const deepclust::Tensor&, const deepclust::Tensor&, const deepclust::Tensor&,
                                         const deepclust::Tensor&, bool);
  library.impl("dhog_loss", TORCH_BOX(&deepclust::cuda::dhog_loss));
  library.impl("dhog_loss_backward", TORCH_BOX(static_cast<Backward>(&deepclust::cuda::dhog_loss_backward)));
}
