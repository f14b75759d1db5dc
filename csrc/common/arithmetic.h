// Whole numbers rounded up, once for everybody.
#pragma once

#include <cstdint>

#include "macros.h"

namespace deepclust {

// How many pieces of `size` hold `value`.
DC_HOST_DEVICE constexpr int64_t ceil_div(int64_t value, int64_t size) {
  return (value + size - 1) / size;
}

DC_HOST_DEVICE constexpr int64_t round_up(int64_t value, int64_t multiple) {
  return ceil_div(value, multiple) * multiple;
}

}  // namespace deepclust
