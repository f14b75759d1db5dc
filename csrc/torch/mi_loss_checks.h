// mi_loss's arguments, whichever device they are on.
#pragma once

#include <vector>

#include "checks.h"
#include "dispatch.h"

namespace deepclust {

inline std::vector<int64_t> leading_sizes(const Tensor& t) {
  const auto sizes = t.sizes();
  return std::vector<int64_t>(sizes.begin(), sizes.end() - 2);
}

inline std::vector<int64_t> joint_sizes(const Tensor& p, const Tensor& q) {
  std::vector<int64_t> sizes = leading_sizes(p);
  sizes.push_back(p.size(p.dim() - 1));
  sizes.push_back(q.size(q.dim() - 1));
  return sizes;
}

inline void check_mi_inputs(const Tensor& p, const Tensor& q) {
  DC_CHECK(p.dim() >= 2 && is_floating(p), "mi_loss", "p", "a floating-point tensor of at least two dimensions");
  DC_CHECK(q.dim() == p.dim() && q.scalar_type() == p.scalar_type(), "mi_loss", "q", "of p's dtype and dimensions");
  for (int64_t i = 0; i + 1 < p.dim(); ++i)
    DC_CHECK(p.size(i) == q.size(i), "mi_loss", "q", "of p's shape but for the last dimension");
  DC_CHECK(p.size(p.dim() - 1) > 0 && q.size(q.dim() - 1) > 0, "mi_loss", "p", "of at least one class");
}

inline void check_mi_forward(const Tensor& p, const Tensor& q, bool symmetric) {
  check_mi_inputs(p, q);
  DC_CHECK(!symmetric || p.size(p.dim() - 1) == q.size(q.dim() - 1), "mi_loss", "q",
           "as wide as p when symmetric is true");
}

inline void check_mi_backward(const Tensor& grad_loss, const Tensor& p, const Tensor& q, const Tensor& joint_grad) {
  check_mi_inputs(p, q);
  const ScalarType dtype = accumulator_dtype(p.scalar_type());
  DC_CHECK(grad_loss.scalar_type() == dtype && has_sizes(grad_loss, leading_sizes(p)), "mi_loss_backward", "grad_loss",
           "of the loss's dtype and shape");
  DC_CHECK(joint_grad.scalar_type() == dtype && has_sizes(joint_grad, joint_sizes(p, q)), "mi_loss_backward",
           "joint_grad", "what mi_loss returned");
}

}  // namespace deepclust
