// dhog_loss's launches on numpy arrays; bfloat16 as uint16.
#include "../cuda/dhog_loss.cu"
#include "arrays.h"
#include "bind.h"
#include "stored.h"

namespace deepclust::emu {
namespace {

cuda::DhogPlan plan_of(const py::array& probs, bool pooled) {
  return {probs.shape(0), probs.shape(1), probs.shape(2), probs.shape(3), pooled, dtype_of(probs)};
}

// probs [A, H, n, C] -> loss [], pull [H], push [H, H], pull_grad [H, pairs, C, C], push_grad [H, H, C, C].
py::tuple dhog_loss(const py::array& probs, double alpha, bool pooled, bool push_by_index, double lamb) {
  const cuda::DhogPlan plan = plan_of(probs, pooled);
  return with_stored(plan.dtype, [&](auto zero) -> py::tuple {
    using E = decltype(zero);
    using T = accumulator_t<E>;
    const int64_t h = plan.heads, c = plan.classes;
    const auto memory = to_device<E>(probs, "probs");
    const DeviceBuffer<unsigned char> workspace(static_cast<int64_t>(plan.workspace_bytes()));
    const DeviceBuffer<T> loss(1), pull(h), push(h * h), pull_grad(plan.pulls * c * c), push_grad(h * h * c * c);
    const DhogOutputs out{alpha,      push_by_index,   lamb,           loss.get(), pull.get(),
                          push.get(), pull_grad.get(), push_grad.get()};
    cuda::dhog_loss_forward(plan, memory.get(), workspace.get(), out, nullptr);
    return py::make_tuple(to_numpy(loss, {}), to_numpy(pull), to_numpy(push, {h, h}),
                          to_numpy(pull_grad, {h, plan.pairs, c, c}), to_numpy(push_grad, {h, h, c, c}));
  });
}

py::array dhog_loss_backward(const py::array& grad_loss, const py::array& probs, const py::array& pull_grad,
                             const py::array& push_grad, bool pooled) {
  const cuda::DhogPlan plan = plan_of(probs, pooled);
  return with_stored(plan.dtype, [&](auto zero) -> py::array {
    using E = decltype(zero);
    using T = accumulator_t<E>;
    const auto memory = to_device<E>(probs, "probs");
    const auto loss = to_device<T>(grad_loss, "grad_loss");
    const auto pull = to_device<T>(pull_grad, "pull_grad"), push = to_device<T>(push_grad, "push_grad");
    const DeviceBuffer<E> grad(probs.size());
    cuda::dhog_loss_backward(plan, loss.get(), memory.get(), pull.get(), push.get(), grad.get(), nullptr);
    return to_numpy(grad, shape_of(probs));
  });
}

}  // namespace

void bind_dhog_loss(py::module_& module) {
  module.def("dhog_loss", &dhog_loss);
  module.def("dhog_loss_backward", &dhog_loss_backward);
}

}  // namespace deepclust::emu
