// mi_loss's launches on numpy arrays; bfloat16 as uint16.
#include "../cuda/mi_loss.cu"
#include "arrays.h"
#include "bind.h"
#include "stored.h"

namespace deepclust::emu {
namespace {

cuda::MiPlan plan_of(const py::array& p, const py::array& q) {
  return {p.shape(0), p.shape(1), p.shape(2), q.shape(2), dtype_of(p)};
}

// p [batch, n, C], q [batch, n, D] -> loss [batch], joint_grad [batch, C, D].
py::tuple mi_loss(const py::array& p, const py::array& q, double lamb, bool symmetric) {
  const cuda::MiPlan plan = plan_of(p, q);
  return with_stored(plan.dtype, [&](auto zero) -> py::tuple {
    using E = decltype(zero);
    using T = accumulator_t<E>;
    const auto p_memory = to_device<E>(p, "p"), q_memory = to_device<E>(q, "q");
    const DeviceBuffer<unsigned char> workspace(static_cast<int64_t>(plan.workspace_bytes()));
    const DeviceBuffer<T> loss(plan.batch), joint_grad(plan.batch * plan.rows * plan.cols);
    cuda::mi_loss_forward(plan, p_memory.get(), q_memory.get(), lamb, symmetric, workspace.get(), loss.get(),
                          joint_grad.get(), nullptr, nullptr);
    return py::make_tuple(to_numpy(loss), to_numpy(joint_grad, {plan.batch, plan.rows, plan.cols}));
  });
}

// The gradients of p and q; None for one that is not needed.
py::tuple mi_loss_backward(const py::array& grad_loss, const py::array& p, const py::array& q,
                           const py::array& joint_grad, bool need_p, bool need_q) {
  const cuda::MiPlan plan = plan_of(p, q);
  return with_stored(plan.dtype, [&](auto zero) -> py::tuple {
    using E = decltype(zero);
    using T = accumulator_t<E>;
    const auto p_memory = to_device<E>(p, "p"), q_memory = to_device<E>(q, "q");
    const auto loss = to_device<T>(grad_loss, "grad_loss"), joint = to_device<T>(joint_grad, "joint_grad");
    const DeviceBuffer<unsigned char> workspace(static_cast<int64_t>(plan.backward_workspace_bytes()));
    const DeviceBuffer<E> grad_p(need_p ? p.size() : 0), grad_q(need_q ? q.size() : 0);
    cuda::mi_loss_backward(plan, loss.get(), p_memory.get(), q_memory.get(), joint.get(), workspace.get(),
                           need_p ? grad_p.get() : nullptr, need_q ? grad_q.get() : nullptr, nullptr, nullptr);
    const auto out = [](bool needed, const DeviceBuffer<E>& grad, const py::array& like) -> py::object {
      return needed ? py::object(to_numpy(grad, shape_of(like))) : py::none();
    };
    return py::make_tuple(out(need_p, grad_p, p), out(need_q, grad_q, q));
  });
}

}  // namespace

void bind_mi_loss(py::module_& module) {
  module.def("mi_loss", &mi_loss);
  module.def("mi_loss_backward", &mi_loss_backward);
}

}  // namespace deepclust::emu
