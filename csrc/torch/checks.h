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

}  // namespace deepclust
