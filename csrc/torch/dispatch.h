// From a run-time dtype to a compile-time one.
#pragma once

#include <utility>

#include "stable.h"

namespace deepclust {

// The dtype sums are kept in: double for double, float for everything else.
inline ScalarType accumulator_dtype(ScalarType dtype) {
  return dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// `t` itself, or its copy in the accumulator's dtype where it is a half type.
inline Tensor as_accumulator(const Tensor& t) {
  const ScalarType dtype = accumulator_dtype(t.scalar_type());
  return t.scalar_type() == dtype ? t : torch::stable::to(t, dtype);
}

// Calls f(T{}) with T float or double.
template <typename F>
auto dispatch_accumulator(ScalarType dtype, F&& f) {
  return dtype == ScalarType::Double ? std::forward<F>(f)(double{}) : std::forward<F>(f)(float{});
}

}  // namespace deepclust
