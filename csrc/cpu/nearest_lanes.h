// What the search does with vectors: loads, sums over lanes, and the one squared distance of the library.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "nearest_kernel.h"

namespace deepclust::cpu::nearest {

using Vec16 = VectorOf<float>::type;
using Mask16 = VectorOf<float>::mask;
inline constexpr float kInfinity = std::numeric_limits<float>::infinity();
// More than the relative error of a norm of up to 2^16 squares summed in float, and of the few steps after it.
inline constexpr float kSafe = 1.001f;
// Of any product or sum that the bounds are made of, relative to what they are made from.
inline constexpr float kRounding = 0x1p-19f;
// What no relative bound covers: squares below 2^-149 are lost, of a norm of `d` entries and of a bracket's products.
inline float lost_norm(int64_t d) {
  return std::sqrt(static_cast<float>(d)) * 0x1p-74f;
}
inline float lost_product(int64_t d) {
  return static_cast<float>(d + 16) * 0x1p-147f;
}

template <typename V, typename T>
DC_INLINE void load(const T* from, V& vector) {
  __builtin_memcpy(&vector, from, sizeof(V));
}
template <typename V, typename T>
DC_INLINE void store(T* to, const V& vector) {
  __builtin_memcpy(to, &vector, sizeof(V));
}

// The first `count` elements, and zeros.
template <typename T>
DC_INLINE void load_some(const T* from, int64_t count, typename VectorOf<T>::type& vector) {
  T padded[kLanes<T>] = {};
  for (int64_t i = 0; i < count; ++i) padded[i] = from[i];
  load(padded, vector);
}

// The lanes by halves, in registers.
DC_INLINE float sum_lanes(const Vec16& v) {
  const auto eight = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                     __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
  const auto four =
      __builtin_shufflevector(eight, eight, 0, 1, 2, 3) + __builtin_shufflevector(eight, eight, 4, 5, 6, 7);
  return (four[0] + four[2]) + (four[1] + four[3]);
}
DC_INLINE double sum_lanes(const VectorOf<double>::type& v) {
  const auto four = __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
  return (four[0] + four[2]) + (four[1] + four[3]);
}

template <typename T>
DC_INLINE T distance_inline(const T* __restrict__ x, const T* __restrict__ c, int64_t d) {
  using V = typename VectorOf<T>::type;
  constexpr int64_t kL = kLanes<T>;
  V sum[4] = {};
  int64_t j = 0;
  for (; j + 4 * kL <= d; j += 4 * kL)
    for (int i = 0; i < 4; ++i) {
      V a, b;
      load(x + j + i * kL, a);
      load(c + j + i * kL, b);
      const V difference = a - b;
      sum[i] += difference * difference;
    }
  for (int i = 0; j < d; j += kL, ++i) {
    V a, b;
    if (j + kL <= d) {
      load(x + j, a);
      load(c + j, b);
    } else {
      load_some(x + j, d - j, a);
      load_some(c + j, d - j, b);
    }
    const V difference = a - b;
    sum[i] += difference * difference;
  }
  return sum_lanes(V((sum[0] + sum[1]) + (sum[2] + sum[3])));
}

DC_INLINE float least_lane(const Vec16& v) {
  const auto least = [](const auto& a, const auto& b) DC_INLINE_LAMBDA { return a < b ? a : b; };
  const auto eight = least(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7),
                           __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
  const auto four =
      least(__builtin_shufflevector(eight, eight, 0, 1, 2, 3), __builtin_shufflevector(eight, eight, 4, 5, 6, 7));
  return std::min(std::min(four[0], four[2]), std::min(four[1], four[3]));
}

// Whether every lane of a comparison holds. Lane by lane this would cost more than the comparison.
DC_INLINE bool all_lanes(const Mask16& mask) {
  typedef int8_t Bytes __attribute__((vector_size(16)));
  const Bytes bytes = __builtin_convertvector(mask, Bytes);
  int64_t halves[2];
  __builtin_memcpy(halves, &bytes, sizeof(halves));
  return (halves[0] & halves[1]) == -1;
}

}  // namespace deepclust::cpu::nearest
