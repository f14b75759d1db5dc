// A run-time dtype without torch, and the way from it to a compile-time one.
#pragma once

#include <cstddef>
#include <utility>

#include "half.h"

namespace deepclust {

enum class DType { kHalf, kBFloat16, kFloat, kDouble };

inline std::size_t accumulator_bytes(DType dtype) {
  return dtype == DType::kDouble ? sizeof(double) : sizeof(float);
}

// Calls f(T{}) with T the type of a stored number.
template <typename F>
void dispatch_stored(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kHalf: return std::forward<F>(f)(Half{});
    case DType::kBFloat16: return std::forward<F>(f)(BFloat16{});
    case DType::kFloat: return std::forward<F>(f)(float{});
    case DType::kDouble: return std::forward<F>(f)(double{});
  }
}

}  // namespace deepclust
