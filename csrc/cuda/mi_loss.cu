#include "blas.h"
#include "mi_loss_kernel.cuh"

namespace deepclust::cuda {
namespace {

template <typename T>
struct ForwardSpace {
  Workspace memory;
  T* partials;
  JointSpace<T> space;

  ForwardSpace(const MiPlan& plan, void* base)
      : memory(base),
        partials(memory.take<T>(plan.batch * plan.chunks * plan.rows * plan.cols)),
        space(memory, plan.batch, plan.rows, plan.cols, plan.cut) {}
};

// Both gradients by cuBLAS: grad_p = q (g dL/dJ)^T, grad_q = p (g dL/dJ).
template <typename E>
void multiply_gradients(const MiPlan& plan, const MiGradients<E>& source, void* workspace, void* handle,
                        Stream stream) {
  using T = accumulator_t<E>;
  T* const scaled = static_cast<T*>(workspace);
  const int64_t size = plan.rows * plan.cols, blocks = ceil_div(size, 8 * kThreads);
  auto* const kernel = &scale_joint_grads<T>;
  DC_LAUNCH(kernel, static_cast<unsigned>(plan.batch * blocks), kThreads, 0, stream)
  (source.grad_loss, source.joint_grad, size, blocks, scaled);
  if (source.grad_p != nullptr)
    multiply({plan.batch, plan.n, plan.rows, plan.cols, source.q, scaled, source.grad_p, false, true, plan.dtype},
             handle);
  if (source.grad_q != nullptr)
    multiply({plan.batch, plan.n, plan.cols, plan.rows, source.p, scaled, source.grad_q, false, false, plan.dtype},
             handle);
}

}  // namespace

std::size_t MiPlan::workspace_bytes() const {
  return dtype == DType::kDouble ? ForwardSpace<double>(*this, nullptr).memory.bytes()
                                 : ForwardSpace<float>(*this, nullptr).memory.bytes();
}

std::size_t MiPlan::backward_workspace_bytes() const {
  const bool half = dtype == DType::kHalf || dtype == DType::kBFloat16;
  return blas && !half ? static_cast<std::size_t>(batch * rows * cols) * accumulator_bytes(dtype) : 0;
}

void mi_loss_forward(const MiPlan& plan, const void* p, const void* q, double lamb, bool symmetric, void* workspace,
                     void* loss, void* joint_grad, void* blas_handle, void* stream) {
  if (plan.batch == 0) return;
  dispatch_stored(plan.dtype, [&](auto zero) {
    using E = decltype(zero);
    using T = accumulator_t<E>;
    const ForwardSpace<T> memory(plan, workspace);
    if (plan.blas) {
      multiply({plan.batch, plan.rows, plan.cols, plan.n, p, q, memory.partials, true, false, plan.dtype}, blas_handle);
    } else {
      const MiJointProducts<E> source{plan, static_cast<const E*>(p), static_cast<const E*>(q), memory.partials};
      launch_products<true>(source, plan.tile,
                            rows_start_on_vectors(p, plan.rows) && rows_start_on_vectors(q, plan.cols),
                            plan.batch * plan.chunks * plan.tiles(), static_cast<Stream>(stream));
    }
    const MiJoints<T> joints{
        plan, lamb, symmetric, memory.space, memory.partials, static_cast<T*>(loss), static_cast<T*>(joint_grad)};
    launch_joints(joints, plan.batch, plan.cut.blocks, static_cast<Stream>(stream));
  });
}

void mi_loss_backward(const MiPlan& plan, const void* grad_loss, const void* p, const void* q, const void* joint_grad,
                      void* workspace, void* grad_p, void* grad_q, void* blas_handle, void* stream) {
  if (plan.batch == 0) return;
  dispatch_stored(plan.dtype, [&](auto zero) {
    using E = decltype(zero);
    using T = accumulator_t<E>;
    const MiGradients<E> source{plan,
                                static_cast<const T*>(grad_loss),
                                static_cast<const E*>(p),
                                static_cast<const E*>(q),
                                static_cast<const T*>(joint_grad),
                                static_cast<E*>(grad_p),
                                static_cast<E*>(grad_q)};
    if (plan.backward_workspace_bytes() > 0)
      return multiply_gradients(plan, source, workspace, blas_handle, static_cast<Stream>(stream));
    launch_products<false>(source, plan.tile, false, source.blocks(plan.tile), static_cast<Stream>(stream));
  });
}

}  // namespace deepclust::cuda
