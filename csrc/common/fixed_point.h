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

// Bits of an integer of which n sum to less than 2^62: at most 50.
DC_HOST_DEVICE int fixed_point_digits(int64_t n) {
  int bits = 0;
  while ((int64_t{1} << bits) < n) ++bits;
  return 61 - bits < 50 ? 61 - bits : 50;
}

// The power of two that brings |value| <= range to at most 2^50, and n of them to less than 2^62.
DC_HOST_DEVICE double fixed_point_scale(double range, int64_t n) {
  if (!(range > 0.0)) return 1.0;
  int exponent;
  frexp(range, &exponent);  // range < 2^exponent
  const int digits = fixed_point_digits(n) - exponent;
  return ldexp(1.0, digits < 1000 ? digits : 1000);
}

// A weight between 0 and 1 in units of `unit`, a power of two: what is less than half of one counts as 0.
DC_HOST_DEVICE int64_t weight_units(double weight, double unit) {
  return static_cast<int64_t>(weight / unit + 0.5);
}

}  // namespace deepclust
