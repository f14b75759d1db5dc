// Argument checks of the raw ops. The public Python functions check first and say more; these guard direct calls.
#pragma once

#include "stable.h"

#define DC_CHECK(condition, op, arg, must) STD_TORCH_CHECK(condition, op ": '" arg "' must be " must)

namespace deepclust {

inline bool is_floating(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Half:
    case ScalarType::BFloat16:
    case ScalarType::Float:
    case ScalarType::Double: return true;
    default: return false;
  }
}

inline bool has_sizes(const Tensor& t, const std::vector<int64_t>& sizes) {
  if (t.dim() != static_cast<int64_t>(sizes.size())) return false;
  for (int64_t i = 0; i < t.dim(); ++i)
    if (t.size(i) != sizes[static_cast<size_t>(i)]) return false;
  return true;
}

}  // namespace deepclust
