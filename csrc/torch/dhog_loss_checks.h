// dhog_loss's arguments and results, whichever device they are on.
#pragma once

#include <tuple>

#include "../common/dhog_outputs.h"
#include "checks.h"
#include "dispatch.h"

namespace deepclust {

inline void check_dhog_probs(const Tensor& probs) {
  DC_CHECK(probs.dim() == 4 && is_floating(probs), "dhog_loss", "probs", "a floating-point tensor (A, H, n, C)");
  DC_CHECK(probs.size(0) >= 2, "dhog_loss", "probs", "of at least two augmentations");
  DC_CHECK(probs.size(1) >= 1 && probs.size(3) >= 1, "dhog_loss", "probs", "of at least one head and one class");
}

// `pull_pairs`: joints a head, 1 when pooled.
inline void check_dhog_backward(const Tensor& grad_loss, const Tensor& probs, const Tensor& pull_grad,
                                const Tensor& push_grad, int64_t pull_pairs) {
  const ScalarType dtype = accumulator_dtype(probs.scalar_type());
  const int64_t heads = probs.size(1), c = probs.size(3);
  DC_CHECK(grad_loss.scalar_type() == dtype && has_sizes(grad_loss, {}), "dhog_loss_backward", "grad_loss",
           "of the loss's dtype and shape");
  DC_CHECK(
      pull_grad.scalar_type() == dtype && has_sizes(pull_grad, {heads, pull_pairs, c, c}) && pull_grad.is_contiguous(),
      "dhog_loss_backward", "pull_grad", "what dhog_loss returned");
  DC_CHECK(push_grad.scalar_type() == dtype && has_sizes(push_grad, {heads, heads, c, c}) && push_grad.is_contiguous(),
           "dhog_loss_backward", "push_grad", "what dhog_loss returned");
}

// loss [], pull [H], push [H, H], and the weighted gradients of the joints: pull_grad [H, pairs, C, C], push_grad
// [H, H, C, C] (strictly lower blocks), uninitialised.
using DhogResults = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

inline DhogResults empty_dhog_results(const Tensor& probs, int64_t pull_pairs) {
  const ScalarType dtype = accumulator_dtype(probs.scalar_type());
  const int64_t heads = probs.size(1), c = probs.size(3);
  return {empty({}, dtype, probs), empty({heads}, dtype, probs), empty({heads, heads}, dtype, probs),
          empty({heads, pull_pairs, c, c}, dtype, probs), empty({heads, heads, c, c}, dtype, probs)};
}

// Where the results lie, and what weighs them; both backends' kernels take it.
inline DhogOutputs outputs_of(const DhogResults& results, double alpha, bool push_by_index, double lamb) {
  return std::apply(
      [&](const auto&... tensors) { return DhogOutputs{alpha, push_by_index, lamb, tensors.mutable_data_ptr()...}; },
      results);
}

}  // namespace deepclust
