// Vectors of the processor, and the logarithm kernels use.
#pragma once

#include <cmath>
#include <cstdint>

#include "accumulator.h"
#include "macros.h"

namespace deepclust {

// 64-byte vectors: one AVX-512 register, two AVX2 or four SSE ones, and plain code elsewhere.
template <typename T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(64), aligned(4), may_alias));
  typedef int32_t mask __attribute__((vector_size(64), aligned(4), may_alias));
  typedef uint32_t bits __attribute__((vector_size(64), aligned(4), may_alias));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(64), aligned(8), may_alias));
  typedef int64_t mask __attribute__((vector_size(64), aligned(8), may_alias));
};
template <typename T>
inline constexpr int64_t kLanes = 64 / sizeof(T);

DC_INLINE constexpr int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// log(x) of every lane for x > 0, subnormals included. Lanes with x <= 0 hold garbage: mask them.
//
// With x = 2^e m, m in [sqrt(1/2), sqrt(2)) and s = (m - 1) / (m + 1): log m = 2 atanh(s) = 2 (s + s^3/3 + s^5/5 +
// ...). |s| < 0.172, so the terms after s^9 are below 1e-9, and the result is within 2 ulp of the true one.
DC_INLINE void log_lanes(const VectorOf<float>::type& x, VectorOf<float>::type& out) {
  using V = VectorOf<float>::type;
  using M = VectorOf<float>::mask;
  using U = VectorOf<float>::bits;
  constexpr float kSmallestNormal = 1.17549435e-38f;
  const M subnormal = x < kSmallestNormal;
  const V scaled = subnormal ? x * 33554432.0f : x;  // 2^25
  const U bits = (U)scaled;                          // a cast between vectors of one size keeps the bits
  // Less the bits of sqrt(1/2), the exponent steps where m would reach sqrt(2). Unsigned: garbage may wrap.
  const M exponent = (M)(bits - 0x3f3504f3u) >> 23;
  const V m = (V)(bits - ((U)exponent << 23));
  V e = __builtin_convertvector(exponent, V);
  e = subnormal ? e - 25.0f : e;
  const V s = (m - 1.0f) / (m + 1.0f);
  const V z = s * s;
  const V series = z * (0.66666667f + z * (0.4f + z * (0.28571429f + z * 0.22222222f)));
  // ln 2 in two parts: the first is exact times any exponent, the second restores the rest.
  out = e * 0.693145752f + (s * 2.0f + (s * series + e * 1.42860677e-06f));
}

DC_INLINE void log_lanes(const VectorOf<double>::type& x, VectorOf<double>::type& out) {
  for (int64_t i = 0; i < kLanes<double>; ++i) out[i] = x[i] > 0 ? std::log(x[i]) : 0.0;
}

}  // namespace deepclust
