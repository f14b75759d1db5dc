#include "mi_loss.h"

#include <optional>
#include <tuple>

#include "../torch/cuda_arguments.h"
#include "../torch/mi_loss_checks.h"

namespace deepclust::cuda {
namespace {

MiPlan plan_of(const Tensor& p, const Tensor& q) {
  int64_t batch = 1;
  for (int64_t i = 0; i + 2 < p.dim(); ++i) batch *= p.size(i);
  return MiPlan(batch, p.size(p.dim() - 2), p.size(p.dim() - 1), q.size(q.dim() - 1), dtype_of(p));
}

Tensor rows_of(const Tensor& t, bool blas) {
  return blas ? dense_on_bound(t) : dense(t);
}

}  // namespace

// (p [.., n, C], q [.., n, D]) -> loss [..], dL/dJ [.., C, D], both in the accumulator's dtype.
std::tuple<Tensor, Tensor> mi_loss(const Tensor& p, const Tensor& q, double lamb, bool symmetric) {
  check_mi_forward(p, q, symmetric);
  check_same_device("mi_loss", "p", p, "q", q);
  const DeviceScope scope(p);
  const ScalarType dtype = accumulator_dtype(p.scalar_type());
  Tensor loss = empty(leading_sizes(p), dtype, p), joint_grad = empty(joint_sizes(p, q), dtype, p);
  const MiPlan plan = plan_of(p, q);
  const Tensor p_rows = rows_of(p, plan.blas), q_rows = rows_of(q, plan.blas);
  const Tensor memory = workspace(plan.workspace_bytes(), p);
  mi_loss_forward(plan, p_rows.data_ptr(), q_rows.data_ptr(), lamb, symmetric, memory.mutable_data_ptr(),
                  loss.mutable_data_ptr(), joint_grad.mutable_data_ptr(), plan.blas ? blas_handle() : nullptr,
                  scope.stream());
  check_launch("mi_loss");
  return {loss, joint_grad};
}

// grad_loss [..] -> the gradients of p and q; one that is not needed comes back empty.
std::tuple<Tensor, Tensor> mi_loss_backward(const Tensor& grad_loss, const Tensor& p, const Tensor& q,
                                            const Tensor& joint_grad, bool need_p, bool need_q) {
  check_mi_backward(grad_loss, p, q, joint_grad);
  check_same_device("mi_loss_backward", "p", p, "q", q);
  check_same_device("mi_loss_backward", "p", p, "grad_loss", grad_loss);
  check_same_device("mi_loss_backward", "p", p, "joint_grad", joint_grad);
  const DeviceScope scope(p);
  const auto gradient = [&](bool needed, const Tensor& input) {
    const auto sizes = input.sizes();
    return empty(needed ? std::vector<int64_t>(sizes.begin(), sizes.end()) : std::vector<int64_t>{0},
                 input.scalar_type(), p);
  };
  Tensor grad_p = gradient(need_p, p), grad_q = gradient(need_q, q);
  const MiPlan plan = plan_of(p, q);
  const bool blas = plan.backward_workspace_bytes() > 0;
  const Tensor upstream = dense(grad_loss), joint = dense(joint_grad);
  const Tensor p_rows = rows_of(p, blas), q_rows = rows_of(q, blas);
  std::optional<Tensor> memory;
  if (blas) memory = workspace(plan.backward_workspace_bytes(), p);
  mi_loss_backward(plan, upstream.data_ptr(), p_rows.data_ptr(), q_rows.data_ptr(), joint.data_ptr(),
                   memory ? memory->mutable_data_ptr() : nullptr, need_p ? grad_p.mutable_data_ptr() : nullptr,
                   need_q ? grad_q.mutable_data_ptr() : nullptr, plan.blas ? blas_handle() : nullptr, scope.stream());
  check_launch("mi_loss_backward");
  return {grad_p, grad_q};
}

}  // namespace deepclust::cuda

STABLE_TORCH_LIBRARY_IMPL(deepclust, CUDA, library) {
  using Backward = std::tuple<deepclust::Tensor, deepclust::Tensor> (*)(
      const deepclust::Tensor&, const deepclust::Tensor&, const deepclust::Tensor&, const deepclust::Tensor&, bool,
      bool);
  library.impl("mi_loss", TORCH_BOX(&deepclust::cuda::mi_loss));
  library.impl("mi_loss_backward", TORCH_BOX(static_cast<Backward>(&deepclust::cuda::mi_loss_backward)));
}
