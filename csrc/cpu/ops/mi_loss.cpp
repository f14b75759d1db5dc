#include "../mi/mi_loss.h"

#include <tuple>

#include "../../torch/mi_loss_checks.h"
#include "../../torch/parallel.h"

namespace deepclust::cpu {
namespace {

// p seen as [batch, n, C]; a plain matrix has batch 1.
struct Batched {
  Tensor tensor;
  int64_t batch, rows, cols, batch_stride, row_stride, col_stride;

  explicit Batched(const Tensor& t) : tensor(t) {
    if (t.dim() > 3) {
      int64_t matrices = 1;  // not -1: where there are no samples, any number would do
      for (int64_t i = 0; i + 2 < t.dim(); ++i) matrices *= t.size(i);
      tensor = torch::stable::reshape(t, {matrices, t.size(t.dim() - 2), t.size(t.dim() - 1)});
    }
    const int64_t dim = tensor.dim();
    batch = dim == 3 ? tensor.size(0) : 1;
    batch_stride = dim == 3 ? tensor.stride(0) : 0;
    rows = tensor.size(dim - 2);
    cols = tensor.size(dim - 1);
    row_stride = tensor.stride(dim - 2);
    col_stride = tensor.stride(dim - 1);
  }
  template <typename T>
  Matrix<const T> matrix(int64_t index) const {
    return {static_cast<const T*>(tensor.data_ptr()) + index * batch_stride, rows, cols, row_stride, col_stride};
  }
};

// Loss and gradient of one joint whose partials lie in `partials`.
template <typename T>
void finish_joint(const JointPlan& plan, T* partials, double lamb, bool symmetric, bool serial, T* loss, T* gradient) {
  Joint<T> joint;
  joint.data = partials;
  joint.rows = plan.rows;
  joint.cols = plan.cols;
  joint.ld = plan.ld;
  joint.lamb = lamb;
  const Buffer<T> scratch(Joint<T>::scratch_size(plan.rows, plan.ld));
  const Buffer<double> block_loss(joint.blocks());
  joint.bind(scratch.get());
  joint.block_loss = block_loss.get();

  // A logarithm costs about as much as 16 multiply-adds.
  const int64_t work = serial ? 0 : plan.rows * plan.ld * 16;
  const auto blocks = [&](const auto& step) { parallel_tasks(joint.blocks(), work, step); };
  if (plan.chunks > 1) blocks([&](int64_t block) { combine_partials(plan, block, partials); });
  if (symmetric) blocks([&](int64_t block) { symmetrise_block(joint, block); });
  blocks([&](int64_t block) { marginals_block(joint, block); });
  finish_marginals(joint);
  blocks([&](int64_t block) { gradient_block(joint, block); });
  finish_loss(joint);
  *loss = static_cast<T>(joint.loss);
  blocks([&](int64_t block) { scale_block(joint, block, 1.0, gradient, plan.cols); });
}

template <typename T>
void forward(const Batched& p, const Batched& q, double lamb, bool symmetric, T* loss, T* joint_grad) {
  const JointPlan plan(p.rows, p.cols, q.cols, kLanes<T>);
  const Buffer<T> partials(p.batch * plan.chunks * plan.partial_size());
  const auto partials_of = [&](int64_t b) { return partials.get() + b * plan.chunks * plan.partial_size(); };
  parallel_tasks(p.batch * plan.tasks(), p.batch * plan.work(), [&](int64_t task) {
    const int64_t b = task / plan.tasks();
    joint_task(plan, p.matrix<T>(b), q.matrix<T>(b), task % plan.tasks(), partials_of(b));
  });
  const int64_t size = plan.rows * plan.cols;
  parallel_tasks(p.batch, p.batch * size * 16, [&](int64_t b) {
    finish_joint(plan, partials_of(b), lamb, symmetric, p.batch > 1, loss + b, joint_grad + b * size);
  });
}

// out = grad_loss * x m^T for every batch item, m = [rows, cols] of joint_grad seen through its strides.
template <typename T>
void apply(const Batched& x, const Batched& m, const T* grad_loss, T* out) {
  const int64_t out_cols = m.rows, panels_size = Panels<T>::size(m.cols, out_cols);
  const Buffer<T> memory(x.batch * panels_size);
  std::vector<Panels<T>> panels(static_cast<size_t>(x.batch));
  for (int64_t b = 0; b < x.batch; ++b) {
    panels[b] = panels_of(m.matrix<T>(b).transposed(), memory.get() + b * panels_size);
  }
  const int64_t row_blocks = ceil_div(x.rows, kBackwardRows);
  parallel_tasks(x.batch * row_blocks, x.batch * x.rows * m.rows * m.cols, [&](int64_t task) {
    const int64_t b = task / row_blocks, begin = task % row_blocks * kBackwardRows;
    apply_rows(x.matrix<T>(b), panels[b], out_cols, static_cast<double>(grad_loss[b]), begin,
               std::min(x.rows, begin + kBackwardRows), out + b * x.rows * out_cols);
  });
}

}  // namespace

// (p [.., n, C], q [.., n, D]) -> loss [..], dL/dJ [.., C, D], both in the accumulator's dtype.
std::tuple<Tensor, Tensor> mi_loss(const Tensor& p, const Tensor& q, double lamb, bool symmetric) {
  check_mi_forward(p, q, symmetric);
  const ScalarType dtype = accumulator_dtype(p.scalar_type());
  Tensor loss = empty(leading_sizes(p), dtype, p), joint_grad = empty(joint_sizes(p, q), dtype, p);
  const Batched p3(as_accumulator(p)), q3(as_accumulator(q));
  dispatch_accumulator(dtype, [&](auto zero) {
    using T = decltype(zero);
    forward(p3, q3, lamb, symmetric, static_cast<T*>(loss.mutable_data_ptr()),
            static_cast<T*>(joint_grad.mutable_data_ptr()));
  });
  return {loss, joint_grad};
}

// grad_loss [..] -> the gradients of p and q; one that is not needed comes back empty.
std::tuple<Tensor, Tensor> mi_loss_backward(const Tensor& grad_loss, const Tensor& p, const Tensor& q,
                                            const Tensor& joint_grad, bool need_p, bool need_q) {
  check_mi_backward(grad_loss, p, q, joint_grad);
  const ScalarType dtype = accumulator_dtype(p.scalar_type());
  const Batched p3(as_accumulator(p)), q3(as_accumulator(q)), m(joint_grad);
  const Tensor grads = grad_loss.is_contiguous() ? grad_loss : torch::stable::contiguous(grad_loss);
  const auto side = [&](bool needed, const Tensor& input, const Batched& other, bool transpose) {
    if (!needed) return empty({0}, input.scalar_type(), p);
    Tensor out = empty(std::vector<int64_t>(input.sizes().begin(), input.sizes().end()), dtype, p);
    Batched matrix = m;
    if (transpose) {
      std::swap(matrix.rows, matrix.cols);
      std::swap(matrix.row_stride, matrix.col_stride);
    }
    dispatch_accumulator(dtype, [&](auto zero) {
      using T = decltype(zero);
      apply(other, matrix, static_cast<const T*>(grads.data_ptr()), static_cast<T*>(out.mutable_data_ptr()));
    });
    return input.scalar_type() == dtype ? out : torch::stable::to(out, input.scalar_type());
  };
  Tensor grad_p = side(need_p, p, q3, false);
  Tensor grad_q = side(need_q, q, p3, true);
  return {grad_p, grad_q};
}

}  // namespace deepclust::cpu

STABLE_TORCH_LIBRARY_IMPL(deepclust, CPU, library) {
  library.impl("mi_loss", TORCH_BOX(&deepclust::cpu::mi_loss));
  library.impl("mi_loss_backward", TORCH_BOX(&deepclust::cpu::mi_loss_backward));
}
