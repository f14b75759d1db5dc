#include "../mi/dhog_loss.h"

#include "../../torch/dhog_loss_checks.h"
#include "../../torch/parallel.h"
#include "../mi/joint.h"

namespace deepclust::cpu {
namespace {

// Loss of the joint `block` [C, C], rows `stride` apart; its gradient times `scale` goes to `gradient` [C, C].
// scratch: [C, class_ld] for the padded joint, then what Joint needs.
template <typename T>
double finish_joint(const DhogPlan& plan, const T* block, int64_t stride, double lamb, bool symmetric, double scale,
                    T* scratch, double* block_loss, T* gradient) {
  for (int64_t c = 0; c < plan.classes; ++c) {
    copy_row(scratch + c * plan.class_ld, block + c * stride, plan.classes);
    std::fill(scratch + c * plan.class_ld + plan.classes, scratch + (c + 1) * plan.class_ld, T(0));
  }
  Joint<T> joint;
  joint.data = scratch;
  joint.rows = joint.cols = plan.classes;
  joint.ld = plan.class_ld;
  joint.lamb = lamb;
  joint.bind(scratch + plan.pull_stride());
  joint.block_loss = block_loss;
  if (symmetric)
    for (int64_t b = 0; b < joint.blocks(); ++b) symmetrise_block(joint, b);
  for (int64_t b = 0; b < joint.blocks(); ++b) marginals_block(joint, b);
  finish_marginals(joint);
  for (int64_t b = 0; b < joint.blocks(); ++b) gradient_block(joint, b);
  finish_loss(joint);
  for (int64_t b = 0; b < joint.blocks(); ++b) scale_block(joint, b, scale, gradient, plan.classes);
  return joint.loss;
}

// Joint number t of all: first the H * pairs pull joints, then the H (H - 1) / 2 push joints, row by row.
template <typename T>
void finish(const DhogPlan& plan, const T* push_joints, const T* pull_joints, const DhogOutputs& out) {
  const int64_t pairs = plan.pull_pairs(), pulls = plan.heads * pairs, pushes = plan.heads * (plan.heads - 1) / 2;
  const int64_t size = plan.classes * plan.classes;
  T* push_grad = static_cast<T*>(out.push_grad);
  T* push = static_cast<T*>(out.push);
  std::fill(push, push + plan.heads * plan.heads, T(0));
  std::fill(push_grad, push_grad + plan.heads * plan.heads * size, T(0));
  const Buffer<double> losses(pulls + pushes);

  // A logarithm costs about as much as 16 multiply-adds, a joint before its first one as 2^14.
  parallel_tasks(pulls + pushes, (pulls + pushes) * (size * 16 + (1 << 14)), [&](int64_t t) {
    const Buffer<T> scratch(plan.pull_stride() + Joint<T>::scratch_size(plan.classes, plan.class_ld));
    const Buffer<double> block_loss(ceil_div(plan.classes, kJointRows));
    if (t < pulls) {
      const double weight = 1.0 / static_cast<double>(plan.heads * pairs);
      losses.get()[t] = finish_joint(plan, pull_joints + t * plan.pull_stride(), plan.class_ld, out.lamb, true, weight,
                                     scratch.get(), block_loss.get(), static_cast<T*>(out.pull_grad) + t * size);
      return;
    }
    int64_t i = 1, j = t - pulls;
    while (j >= i) j -= i++;
    const T* block = push_joints + i * plan.classes * plan.ld + j * plan.classes;
    const double divisor = static_cast<double>(out.push_by_index ? i + 1 : i);
    losses.get()[t] = finish_joint(plan, block, plan.ld, 1.0, false, -out.alpha / divisor, scratch.get(),
                                   block_loss.get(), push_grad + (i * plan.heads + j) * size);
  });

  double loss = 0;
  for (int64_t i = 0; i < plan.heads; ++i) {
    double pull = 0;
    for (int64_t pair = 0; pair < pairs; ++pair) pull -= losses.get()[i * pairs + pair] / static_cast<double>(pairs);
    static_cast<T*>(out.pull)[i] = static_cast<T>(pull);
    loss -= pull / static_cast<double>(plan.heads);
  }
  for (int64_t i = 1, t = pulls; i < plan.heads; ++i)
    for (int64_t j = 0; j < i; ++j, ++t) {
      push[i * plan.heads + j] = static_cast<T>(-losses.get()[t]);
      loss -= out.alpha * losses.get()[t] / static_cast<double>(out.push_by_index ? i + 1 : i);
    }
  *static_cast<T*>(out.loss) = static_cast<T>(loss);
}

DhogPlan plan_of(const Tensor& probs, bool pooled) {
  const int64_t lanes = probs.scalar_type() == ScalarType::Double ? kLanes<double> : kLanes<float>;
  return DhogPlan(probs.size(0), probs.size(1), probs.size(2), probs.size(3), pooled, lanes);
}

template <typename T>
Probs<T> view_of(const Tensor& t) {
  return {static_cast<const T*>(t.data_ptr()), t.stride(0), t.stride(1), t.stride(2), t.stride(3), t.size(3)};
}

template <typename T>
void forward(const Tensor& probs, const DhogPlan& plan, const DhogOutputs& out) {
  const int64_t push_size = plan.push_size(), pull_size = plan.pull_size(), sharing = plan.sharing();
  const Buffer<T> push_total(push_size), pull_total(pull_size);
  std::fill(push_total.get(), push_total.get() + push_size, T(0));
  std::fill(pull_total.get(), pull_total.get() + pull_size, T(0));
  const auto add = [](T* total, const T* __restrict__ part, int64_t size) {
    for (int64_t i = 0; i < size; ++i) total[i] += part[i];
  };
  {
    const int64_t most = plan.wave(0, sizeof(T));
    const Buffer<T> push(most * push_size), pull(ceil_div(most, sharing) * pull_size);
    for (int64_t first = 0, count; first < plan.tasks(); first += count) {
      count = plan.wave(first, sizeof(T));
      const int64_t share = first / sharing, begun = first % sharing == 0 ? 0 : 1;
      const int64_t shares = ceil_div(first + count, sharing) - share;
      std::fill(pull.get() + begun * pull_size, pull.get() + shares * pull_size, T(0));
      parallel_tasks(count, plan.work() / plan.tasks() * count, [&](int64_t t) {
        T* own = push.get() + t * push_size;
        std::fill(own, own + push_size, T(0));
        dhog_forward_task(plan, view_of<T>(probs), first + t, own,
                          pull.get() + ((first + t) / sharing - share) * pull_size);
      });
      for (int64_t t = 0; t < count; ++t) add(push_total.get(), push.get() + t * push_size, push_size);
      if ((first + count) % sharing != 0) continue;  // more is to come
      for (int64_t s = 0; s < shares; ++s) add(pull_total.get(), pull.get() + s * pull_size, pull_size);
    }
  }
  finish(plan, push_total.get(), pull_total.get(), out);
}

template <typename T>
void backward(const Tensor& probs, const Tensor& pull_grad, const Tensor& push_grad, const DhogPlan& plan, double scale,
              T* grad) {
  // The gradients of the joints times the upstream one, as the tasks want them.
  const T factor = static_cast<T>(scale);
  const int64_t c = plan.classes, pulls = plan.heads * plan.pull_pairs();
  const Buffer<T> push(plan.width * plan.ld), pull(pulls * plan.pull_stride());
  std::fill(push.get(), push.get() + plan.width * plan.ld, T(0));
  std::fill(pull.get(), pull.get() + pulls * plan.pull_stride(), T(0));
  const T* g = static_cast<const T*>(push_grad.data_ptr());
  for (int64_t i = 1; i < plan.heads; ++i)
    for (int64_t j = 0; j < i; ++j)
      for (int64_t k = 0; k < c; ++k)
        for (int64_t d = 0; d < c; ++d)
          push.get()[(j * c + d) * plan.ld + i * c + k] = factor * g[((i * plan.heads + j) * c + k) * c + d];
  g = static_cast<const T*>(pull_grad.data_ptr());
  for (int64_t row = 0; row < pulls * c; ++row)
    for (int64_t d = 0; d < c; ++d) pull.get()[row * plan.class_ld + d] = factor * g[row * c + d];
  parallel_tasks(plan.tasks(), plan.work(), [&](int64_t task) {
    dhog_backward_task(plan, view_of<T>(probs), task, push.get(), pull.get(), grad);
  });
}

}  // namespace

// probs [A, H, n, C] -> the loss, its parts, and the gradients of the joints.
DhogResults dhog_loss(const Tensor& probs, double alpha, bool pooled, bool push_by_index, double lamb) {
  check_dhog_probs(probs);
  const DhogPlan plan = plan_of(probs, pooled);
  const Tensor input = as_accumulator(probs);
  DhogResults results = empty_dhog_results(probs, plan.pull_pairs());
  const DhogOutputs out = outputs_of(results, alpha, push_by_index, lamb);
  dispatch_accumulator(input.scalar_type(), [&](auto zero) { forward<decltype(zero)>(input, plan, out); });
  return results;
}

// grad_loss [] -> the gradient of probs, in its dtype.
Tensor dhog_loss_backward(const Tensor& grad_loss, const Tensor& probs, const Tensor& pull_grad,
                          const Tensor& push_grad, bool pooled) {
  check_dhog_probs(probs);
  const ScalarType dtype = accumulator_dtype(probs.scalar_type());
  const DhogPlan plan = plan_of(probs, pooled);
  check_dhog_backward(grad_loss, probs, pull_grad, push_grad, plan.pull_pairs());
  const Tensor input = as_accumulator(probs);
  Tensor grad = empty(std::vector<int64_t>(probs.sizes().begin(), probs.sizes().end()), dtype, probs);
  dispatch_accumulator(dtype, [&](auto zero) {
    using T = decltype(zero);
    backward<T>(input, pull_grad, push_grad, plan, static_cast<double>(*static_cast<const T*>(grad_loss.data_ptr())),
                static_cast<T*>(grad.mutable_data_ptr()));
  });
  return probs.scalar_type() == dtype ? grad : torch::stable::to(grad, probs.scalar_type());
}

}  // namespace deepclust::cpu

STABLE_TORCH_LIBRARY_IMPL(deepclust, CPU, library) {
  library.impl("dhog_loss", TORCH_BOX(&deepclust::cpu::dhog_loss));
  library.impl("dhog_loss_backward", TORCH_BOX(&deepclust::cpu::dhog_loss_backward));
}
