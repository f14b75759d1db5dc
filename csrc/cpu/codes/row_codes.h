// From a point to its 8-bit codes: centred, turned, rounded.
#pragma once

#include <algorithm>
#include <cmath>

#include "../../common/random.h"
#include "../simd/lanes.h"

namespace deepclust::cpu {

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

// One stage of the Hadamard transform inside a register: lanes `Step` apart become their sum and difference.
template <typename L, int Step>
DC_INLINE void mix_lanes(typename Register<L, float>::type& v) {
  if constexpr (Step < Register<L, float>::kLanes) {
    using V = typename Register<L, float>::type;
    V sign, swapped;
    for (int i = 0; i < Register<L, float>::kLanes; ++i) sign[i] = (i & Step) != 0 ? -1.0f : 1.0f;
#if defined(__clang__)
    for (int i = 0; i < Register<L, float>::kLanes; ++i) swapped[i] = v[i ^ Step];
#else  // which g++ does lane by lane, where it is asked lane by lane
    typename Register<L, int32_t>::type partner;
    for (int i = 0; i < Register<L, float>::kLanes; ++i) partner[i] = i ^ Step;
    swapped = __builtin_shuffle(v, partner);
#endif
    v = swapped + v * sign;
  }
}

// The Hadamard transform of y [size], a power of two of at least 16, with rows of length 1.
template <typename L>
DC_INLINE void hadamard(float* __restrict__ y, int64_t size) {
  using V = typename Register<L, float>::type;
  constexpr int64_t kL = Register<L, float>::kLanes;
  const float factor = 1.0f / std::sqrt(static_cast<float>(size));
  for (int64_t j = 0; j < size; j += kL) {
    V v = load<L, float>(y + j) * factor;
    mix_lanes<L, 1>(v);
    mix_lanes<L, 2>(v);
    mix_lanes<L, 4>(v);
    mix_lanes<L, 8>(v);
    store<L, float>(y + j, v);
  }
  for (int64_t step = kL; step < size; step *= 2)
    for (int64_t base = 0; base < size; base += 2 * step)
      for (int64_t j = base; j < base + step; j += kL) {
        const V a = load<L, float>(y + j), b = load<L, float>(y + j + step);
        store<L, float>(y + j, a + b);
        store<L, float>(y + j + step, a - b);
      }
}

// Turns y [padded] by an orthogonal matrix that depends on `padded` alone. Products stay what they are, but the entries
// become about equally large, so that 8 bits with one scale a row lose a third of what they lose on columns of very
// different variance (principal components). Signs first: what looks like a row of the transform would end as a spike.
template <typename L>
DC_INLINE void rotate(float* __restrict__ y, int64_t padded) {
  using Bits = typename Register<L, int32_t>::type;
  using V = typename Register<L, float>::type;
  constexpr int64_t kL = Register<L, float>::kLanes;
  Bits lane;
  for (int i = 0; i < kL; ++i) lane[i] = i;
  for (int64_t j = 0; j < padded; j += 16) {
    const int32_t word = static_cast<int32_t>(mix_bits(static_cast<uint64_t>(j)) & 0xffff);
    for (int64_t i = 0; i < 16; i += kL) {
      const Bits flip = (broadcast<L, int32_t>(word >> i) >> lane) & 1;
      const V v = load<L, float>(y + j + i);
      store<L, float>(y + j + i, flip != 0 ? -v : v);
    }
  }
  int64_t size = 16;
  while (2 * size <= padded) size *= 2;
  hadamard<L>(y, size);
  if (size < padded) hadamard<L>(y + padded - size, size);
}

// The squared norm of y [padded] and its largest entry.
template <typename L>
DC_INLINE void measure(const float* __restrict__ y, int64_t padded, float& square, float& largest) {
  using R = Register<L, float>;
  using V = typename R::type;
  V sum[R::kParts] = {}, most[R::kParts] = {};
  for (int64_t j = 0; j < padded; j += 16)
    for (int p = 0; p < R::kParts; ++p) {
      const V v = load<L, float>(y + j + p * R::kLanes);
      sum[p] += v * v;
      const V absolute = v < 0.0f ? -v : v;
      most[p] = absolute > most[p] ? absolute : most[p];
    }
  square = sum_lanes<L, float>(sum);
  largest = 0.0f;
  for (int p = 0; p < R::kParts; ++p)
    for (int i = 0; i < R::kLanes; ++i) largest = std::max(largest, most[p][i]);
}

// y = x - mean in float, zero up to whole vectors, and turned where `turned`; its squared norm and largest entry.
template <typename L, typename T>
DC_INLINE void centre(const T* __restrict__ x, const T* __restrict__ mean, int64_t d, bool turned,
                      float* __restrict__ y, float& square, float& largest) {
  const int64_t padded = round_up(d, 16);
  for (int64_t j = 0; j < d; ++j) y[j] = static_cast<float>(x[j] - mean[j]);
  for (int64_t j = d; j < padded; ++j) y[j] = 0.0f;
  if (turned) rotate<L>(y, padded);
  measure<L>(y, padded, square, largest);
}

// Codes of y [padded] at `scale`, whole numbers within `limit` of 0, and the squared norm of what they miss.
template <typename L, typename Code>
DC_INLINE float round_to_codes(const float* __restrict__ y, int64_t padded, float scale, float limit,
                               Code* __restrict__ codes, int32_t& total, int32_t& squares) {
  using R = Register<L, float>;
  using V = typename R::type;
  using Whole = typename Register<L, int32_t>::type;
  typedef Code Narrow __attribute__((vector_size(sizeof(Code) * R::kLanes)));
  struct __attribute__((packed, may_alias)) Anywhere {
    Narrow vector;
  };
  const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
  V missed[R::kParts] = {};
  Whole sum[R::kParts] = {}, square[R::kParts] = {};
  for (int64_t j = 0; j < padded; j += 16)
    for (int p = 0; p < R::kParts; ++p) {
      const V v = load<L, float>(y + j + p * R::kLanes);
      // Adding 1.5 * 2^23 leaves no bits behind the point: the nearest integer.
      V rounded = (v * inverse + 12582912.0f) - 12582912.0f;
      rounded = rounded > limit ? broadcast<L, float>(limit) : rounded;
      rounded = rounded < -limit ? broadcast<L, float>(-limit) : rounded;
      const V rest = v - rounded * scale;
      missed[p] += rest * rest;
      const Whole code = __builtin_convertvector(rounded, Whole);
      sum[p] += code;
      square[p] += code * code;
      reinterpret_cast<Anywhere*>(codes + j + p * R::kLanes)->vector = __builtin_convertvector(code, Narrow);
    }
  float error = 0.0f;
  total = squares = 0;
  for (int p = 0; p < R::kParts; ++p)
    for (int i = 0; i < R::kLanes; ++i) {
      error += missed[p][i];
      total += sum[p][i];
      squares += square[p][i];
    }
  return error;
}

}  // namespace deepclust::cpu
