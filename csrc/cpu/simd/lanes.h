// What searches do with registers: sums and least values over lanes, whether all of a comparison holds, distances.
#pragma once

#include <algorithm>

#include "vectors.h"

namespace deepclust::cpu {

// kLanes<T> lanes, in halves: 0 with 8, .. 7 with 15, then 0 with 4 and so on, the same at every level.
template <typename L, typename T>
DC_INLINE T sum_lanes(const typename Register<L, T>::type (&v)[Register<L, T>::kParts]) {
  using R = Register<L, T>;
  typename R::type sum[R::kParts];
#pragma GCC unroll 4
  for (int p = 0; p < R::kParts; ++p) sum[p] = v[p];
#pragma GCC unroll 2
  for (int half = R::kParts / 2; half > 0; half /= 2)
#pragma GCC unroll 2
    for (int p = 0; p < half; ++p) sum[p] += sum[p + half];
  // No longer than a register: the halves that are left.
  if constexpr (R::kLanes == 16) {
    const auto eight = __builtin_shufflevector(sum[0], sum[0], 0, 1, 2, 3, 4, 5, 6, 7) +
                       __builtin_shufflevector(sum[0], sum[0], 8, 9, 10, 11, 12, 13, 14, 15);
    const auto four =
        __builtin_shufflevector(eight, eight, 0, 1, 2, 3) + __builtin_shufflevector(eight, eight, 4, 5, 6, 7);
    return (four[0] + four[2]) + (four[1] + four[3]);
  } else if constexpr (R::kLanes == 8) {
    const auto four =
        __builtin_shufflevector(sum[0], sum[0], 0, 1, 2, 3) + __builtin_shufflevector(sum[0], sum[0], 4, 5, 6, 7);
    return (four[0] + four[2]) + (four[1] + four[3]);
  } else if constexpr (R::kLanes == 4) {
    return (sum[0][0] + sum[0][2]) + (sum[0][1] + sum[0][3]);
  } else {
    return sum[0][0] + sum[0][1];
  }
}

template <typename L>
DC_INLINE float least_lane(const typename Register<L, float>::type& v) {
  const auto least = [](const auto& a, const auto& b) DC_INLINE_LAMBDA { return a < b ? a : b; };
  const auto of_four = [&](const auto& four) DC_INLINE_LAMBDA {
    return std::min(std::min(four[0], four[2]), std::min(four[1], four[3]));
  };
  const auto of_eight = [&](const auto& v) DC_INLINE_LAMBDA {
    return of_four(least(__builtin_shufflevector(v, v, 0, 1, 2, 3), __builtin_shufflevector(v, v, 4, 5, 6, 7)));
  };
  if constexpr (Register<L, float>::kLanes == 16)
    return of_eight(least(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7),
                          __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15)));
  else if constexpr (Register<L, float>::kLanes == 8)
    return of_eight(v);
  else
    return of_four(v);
}

// Bit i: whether lane i of a comparison holds. Lane by lane this would cost more than the comparison.
template <typename L, typename T, typename Mask>
DC_INLINE uint32_t lanes_that_hold(const Mask& mask) {
#if defined(__x86_64__) && defined(__GNUC__)
  constexpr bool kFloat = sizeof(T) == sizeof(float);
  if constexpr (L::kLevel == Level::avx2) {
    typedef float Floats __attribute__((vector_size(32)));
    typedef double Doubles __attribute__((vector_size(32)));
    return static_cast<uint32_t>(kFloat ? __builtin_ia32_movmskps256((Floats)mask)
                                        : __builtin_ia32_movmskpd256((Doubles)mask));
  } else if constexpr (L::kLevel == Level::base) {
    typedef float Floats __attribute__((vector_size(16)));
    typedef double Doubles __attribute__((vector_size(16)));
    return static_cast<uint32_t>(kFloat ? __builtin_ia32_movmskps((Floats)mask)
                                        : __builtin_ia32_movmskpd((Doubles)mask));
  }
#endif
  uint32_t bits = 0;
  for (int64_t i = 0; i < Register<L, T>::kLanes; ++i) bits |= static_cast<uint32_t>(mask[i] & 1) << i;
  return bits;
}

template <typename L>
DC_INLINE bool all_lanes(const typename Register<L, int32_t>::type& mask) {
  if constexpr (L::kLevel == Level::avx512) {
    typedef int8_t Bytes __attribute__((vector_size(16)));
    const Bytes bytes = __builtin_convertvector(mask, Bytes);
    int64_t halves[2];
    __builtin_memcpy(halves, &bytes, sizeof(halves));
    return (halves[0] & halves[1]) == -1;
  } else {
    return lanes_that_hold<L, float>(mask) == (1u << Register<L, int32_t>::kLanes) - 1;
  }
}

// The one order of summation of the library, for sum_j (x_j - c_j)^2 or sum_j x_j c_j: four chains of 64-byte vectors,
// taken in turn, then a tree. It depends on d alone, and x and c play the same part.
template <typename L, bool kSquared, typename T>
DC_INLINE T pair_sum(const T* __restrict__ x, const T* __restrict__ c, int64_t d) {
  using R = Register<L, T>;
  using V = typename R::type;
  constexpr int64_t kL = kLanes<T>;
  constexpr int kParts = R::kParts;
  // What is left beyond whole vectors, filled up with zeros: first, for a call of memcpy in the middle of it would send
  // all accumulators to the stack.
  const int64_t whole = d / kL * kL;
  T a_rest[kL], c_rest[kL];
  if (whole < d) {
    for (int64_t t = 0; t < kL; ++t) a_rest[t] = c_rest[t] = T(0);
    for (int64_t t = whole; t < d; ++t) {
      a_rest[t - whole] = x[t];
      c_rest[t - whole] = c[t];
    }
  }
  V sum[4 * kParts];
#pragma GCC unroll 16
  for (int i = 0; i < 4 * kParts; ++i) sum[i] = V{};
  const auto add = [](V& to, const V& a, const V& b) DC_INLINE_LAMBDA {
    if constexpr (kSquared) {
      const V difference = a - b;
      to += difference * difference;
    } else {
      to += a * b;
    }
  };
  int64_t j = 0;
  for (; j + 4 * kL <= d; j += 4 * kL) {
    // Unrolled early: else the accumulators are an array in memory.
#pragma GCC unroll 16
    for (int i = 0; i < 4 * kParts; ++i)
      add(sum[i], load<L, T>(x + j + i * R::kLanes), load<L, T>(c + j + i * R::kLanes));
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    if (j + kL <= d) {
#pragma GCC unroll 4
      for (int p = 0; p < kParts; ++p)
        add(sum[i * kParts + p], load<L, T>(x + j + p * R::kLanes), load<L, T>(c + j + p * R::kLanes));
    } else if (j < d) {
#pragma GCC unroll 4
      for (int p = 0; p < kParts; ++p)
        add(sum[i * kParts + p], load<L, T>(a_rest + p * R::kLanes), load<L, T>(c_rest + p * R::kLanes));
    }
    j += kL;
  }
  V total[kParts];
#pragma GCC unroll 4
  for (int p = 0; p < kParts; ++p) total[p] = (sum[p] + sum[kParts + p]) + (sum[2 * kParts + p] + sum[3 * kParts + p]);
  return sum_lanes<L, T>(total);
}

// sum_j (x_j - c_j)^2: every squared distance that an op returns, or decides by.
template <typename L, typename T>
DC_INLINE T squared_distance_of(const T* x, const T* c, int64_t d) {
  return pair_sum<L, true>(x, c, d);
}

}  // namespace deepclust::cpu
