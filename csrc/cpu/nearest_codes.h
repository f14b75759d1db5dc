// From a point to its 8-bit codes: centred, turned, rounded.
#pragma once

#include <algorithm>
#include <cmath>

#include "../common/random.h"
#include "nearest_lanes.h"

namespace deepclust::cpu::nearest {

// One stage of the Hadamard transform inside a vector: lanes `Step` apart become their sum and difference.
template <int Step>
DC_INLINE void mix_lanes(Vec16& v) {
  Mask16 partner;
  Vec16 sign;
  for (int i = 0; i < 16; ++i) {
    partner[i] = i ^ Step;
    sign[i] = (i & Step) != 0 ? -1.0f : 1.0f;
  }
  v = __builtin_shuffle(v, partner) + v * sign;
}

// The Hadamard transform of y [size], a power of two of at least 16, with rows of length 1.
DC_INLINE void hadamard(float* __restrict__ y, int64_t size) {
  const float factor = 1.0f / std::sqrt(static_cast<float>(size));
  for (int64_t j = 0; j < size; j += 16) {
    Vec16 v;
    load(y + j, v);
    v *= factor;
    mix_lanes<1>(v);
    mix_lanes<2>(v);
    mix_lanes<4>(v);
    mix_lanes<8>(v);
    store(y + j, v);
  }
  for (int64_t step = 16; step < size; step *= 2)
    for (int64_t base = 0; base < size; base += 2 * step)
      for (int64_t j = base; j < base + step; j += 16) {
        Vec16 a, b;
        load(y + j, a);
        load(y + j + step, b);
        store(y + j, Vec16(a + b));
        store(y + j + step, Vec16(a - b));
      }
}

// Turns y [padded] by an orthogonal matrix that depends on `padded` alone. Products stay what they are, but the entries
// become about equally large, so that 8 bits with one scale a row lose a third of what they lose on columns of very
// different variance (principal components). Signs first: what looks like a row of the transform would end as a spike.
DC_INLINE void rotate(float* __restrict__ y, int64_t padded) {
  Mask16 lane;
  for (int i = 0; i < 16; ++i) lane[i] = i;
  for (int64_t j = 0; j < padded; j += 16) {
    Vec16 v;
    load(y + j, v);
    const Mask16 word = Mask16{} + static_cast<int32_t>(mix_bits(static_cast<uint64_t>(j)) & 0xffff);
    const Mask16 flip = (word >> lane) & 1;
    v = flip != 0 ? -v : v;
    store(y + j, v);
  }
  int64_t size = 16;
  while (2 * size <= padded) size *= 2;
  hadamard(y, size);
  if (size < padded) hadamard(y + padded - size, size);
}

// y = x - mean in float, zero up to whole vectors, and turned where `turned`; its squared norm and largest entry.
template <typename T>
DC_INLINE void centre(const T* __restrict__ x, const T* __restrict__ mean, int64_t d, bool turned,
                      float* __restrict__ y, float& square, float& largest) {
  const int64_t padded = round_up(d, 16);
  for (int64_t j = 0; j < d; ++j) y[j] = static_cast<float>(x[j] - mean[j]);
  for (int64_t j = d; j < padded; ++j) y[j] = 0.0f;
  if (turned) rotate(y, padded);
  Vec16 sum = {}, most = {};
  for (int64_t j = 0; j < padded; j += 16) {
    Vec16 v;
    load(y + j, v);
    sum += v * v;
    const Vec16 absolute = v < 0.0f ? -v : v;
    most = absolute > most ? absolute : most;
  }
  square = sum_lanes(sum);
  largest = 0.0f;
  for (int i = 0; i < 16; ++i) largest = std::max(largest, most[i]);
}

// Codes of y [padded] at `scale`, and the squared norm of what they miss.
DC_INLINE float round_to_codes(const float* __restrict__ y, int64_t padded, float scale, int8_t* __restrict__ codes,
                               int32_t& total, int32_t& squares) {
  typedef int8_t Bytes __attribute__((vector_size(16)));
  const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
  Vec16 missed = {};
  Mask16 sum = {}, square = {};
  for (int64_t j = 0; j < padded; j += 16) {
    Vec16 v;
    load(y + j, v);
    // Adding 1.5 * 2^23 leaves no bits behind the point: the nearest integer.
    Vec16 rounded = (v * inverse + 12582912.0f) - 12582912.0f;
    rounded = rounded > 127.0f ? Vec16{} + 127.0f : rounded;
    rounded = rounded < -127.0f ? Vec16{} - 127.0f : rounded;
    const Vec16 rest = v - rounded * scale;
    missed += rest * rest;
    const Mask16 code = __builtin_convertvector(rounded, Mask16);
    sum += code;
    square += code * code;
    const Bytes bytes = __builtin_convertvector(code, Bytes);
    store(codes + j, bytes);
  }
  float error = 0.0f;
  total = squares = 0;
  for (int i = 0; i < 16; ++i) {
    error += missed[i];
    total += sum[i];
    squares += square[i];
  }
  return error;
}

}  // namespace deepclust::cpu::nearest
