// The logarithm of the kernels, lane by lane.
#pragma once

#include <cmath>

#include "vectors.h"

namespace deepclust::cpu {

// log(x) of every lane for x > 0, subnormals included. Lanes with x <= 0 hold garbage: mask them.
//
// With x = 2^e m, m in [sqrt(1/2), sqrt(2)) and s = (m - 1) / (m + 1): log m = 2 atanh(s) = 2 (s + s^3/3 + s^5/5 +
// ...). |s| < 0.172, so the terms after s^9 are below 1e-9, and the result is within 2 ulp of the true one.
template <typename L>
DC_INLINE typename Register<L, float>::type log_lanes(const typename Register<L, float>::type& x) {
  using V = typename Register<L, float>::type;
  using M = typename Register<L, int32_t>::type;
  using U = typename Register<L, uint32_t>::type;
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
  return e * 0.693145752f + (s * 2.0f + (s * series + e * 1.42860677e-06f));
}

template <typename L>
DC_INLINE typename Register<L, double>::type log_lanes(const typename Register<L, double>::type& x) {
  typename Register<L, double>::type out;
  for (int64_t i = 0; i < Register<L, double>::kLanes; ++i) out[i] = x[i] > 0 ? std::log(x[i]) : 0.0;
  return out;
}

}  // namespace deepclust::cpu
