// The integers that sums of clusters are kept in, the same on either backend: sums that have no order have no rounding
// of their own either, and two backends that agree on the labels agree on the centroids.
#pragma once

#include <cmath>
#include <cstdint>

#include "macros.h"

namespace deepclust {

// 1.5 * 2^52: a double this large has a spacing of 1, so that adding it rounds to an integer, in the low bits.
inline constexpr double kFixedPointMagic = 6755399441055744.0;
inline constexpr int64_t kFixedPointBits = 0x4338000000000000;

// The power of two that brings |value| <= range to at most 2^50, and n of them to less than 2^62.
DC_HOST_DEVICE double fixed_point_scale(double range, int64_t n) {
  if (!(range > 0.0)) return 1.0;
  int exponent, bits = 0;
  frexp(range, &exponent);  // range < 2^exponent
  while ((int64_t{1} << bits) < n) ++bits;
  const int digits = (61 - bits < 50 ? 61 - bits : 50) - exponent;
  return ldexp(1.0, digits < 1000 ? digits : 1000);
}

}  // namespace deepclust
