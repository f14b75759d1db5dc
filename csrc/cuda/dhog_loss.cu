#include "dhog_loss_kernel.cuh"

namespace deepclust::cuda {
namespace {

template <typename T>
struct Space {
  Workspace memory;
  T* partials;
  JointSpace<T> joints;
  double* losses;
  double* shares;
  unsigned* finished;

  Space(const DhogPlan& plan, void* base)
      : memory(base),
        partials(memory.take<T>((plan.pulls * plan.pull_chunks + plan.pushes * plan.push_chunks) * plan.classes *
                                plan.classes)),
        joints(memory, plan.pulls + plan.pushes, plan.classes, plan.classes, plan.cut),
        losses(memory.take<double>(plan.finished)),
        shares(memory.take<double>(plan.heads)),
        finished(memory.take<unsigned>(1)) {}
};

}  // namespace

std::size_t DhogPlan::workspace_bytes() const {
  return dtype == DType::kDouble ? Space<double>(*this, nullptr).memory.bytes()
                                 : Space<float>(*this, nullptr).memory.bytes();
}

void dhog_loss_forward(const DhogPlan& plan, const void* probs, void* workspace, const DhogOutputs& out, void* stream) {
  dispatch_stored(plan.dtype, [&](auto zero) {
    using E = decltype(zero);
    using T = accumulator_t<E>;
    const Space<T> space(plan, workspace);
    const DhogJointProducts<E> products{plan, static_cast<const E*>(probs), space.partials, space.finished};
    const int64_t partials = plan.pulls * plan.pull_chunks + plan.pushes * plan.push_chunks;
    launch_products<true>(products, plan.tile, rows_start_on_vectors(probs, plan.classes), partials * plan.tiles(),
                          static_cast<Stream>(stream));
    const DhogJoints<T> joints{plan, out, space.joints, space.partials, space.losses, space.shares, space.finished};
    launch_joints(joints, plan.finished, plan.cut.blocks, static_cast<Stream>(stream));
  });
}

void dhog_loss_backward(const DhogPlan& plan, const void* grad_loss, const void* probs, const void* pull_grad,
                        const void* push_grad, void* grad, void* stream) {
  dispatch_stored(plan.dtype, [&](auto zero) {
    using E = decltype(zero);
    using T = accumulator_t<E>;
    const DhogGradients<E> source{plan,
                                  static_cast<const T*>(grad_loss),
                                  static_cast<const E*>(probs),
                                  static_cast<const T*>(pull_grad),
                                  static_cast<const T*>(push_grad),
                                  static_cast<E*>(grad)};
    launch_products<false>(source, plan.tile, false, source.blocks(), static_cast<Stream>(stream));
  });
}

}  // namespace deepclust::cuda
