// The register tile of every float product: M rows by V registers of out[m, n] (+)= sum_k A(m, k) B(n, k).
//
// A register of B and a broadcast entry of A meet in one multiply-add; what is kept are M x V accumulators. Two
// multiply-adds a cycle of four cycles' latency want eight of them at least, and loads should be fewer than
// multiply-adds. With AVX-512 (32 registers of 64 bytes) a tile is 8 x 3: 24 accumulators, 11 loads. AVX2 has 16 of 32
// bytes: 4 x 3 uses every one of them, 12 accumulators, three of B and one broadcast, 7 loads. base multiplies and adds
// in two steps, so a register must hold the product: 4 x 2 of 16 bytes.
//
// An entry is one chain in the order of k whatever tile it falls in, so that no cut of the work shows in the bits.
#pragma once

#include <algorithm>
#include <type_traits>

#include "../simd/vectors.h"

namespace deepclust::cpu {

// One side of a tile: entry (m, k) of A at data[m * row_stride + k * depth_stride].
template <typename T>
struct Strip {
  const T* data;
  int64_t depth, depth_stride, row_stride;
};

template <typename L, int M, int V, typename T>
DC_INLINE void register_tile(const Strip<T>& strip, const T* __restrict__ panel, int64_t width, bool accumulate,
                             T* __restrict__ out, int64_t ldo) {
  using R = typename Register<L, T>::type;
  constexpr int64_t kStep = Register<L, T>::kLanes;
  const T* __restrict__ a = strip.data;
  R sum[M][V];
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < V; ++v) {
      sum[m][v] = R{};
      if (accumulate) sum[m][v] = load<L, T>(out + m * ldo + v * kStep);
    }
  for (int64_t k = 0; k < strip.depth; ++k, a += strip.depth_stride, panel += width) {
    R b[V];
    for (int v = 0; v < V; ++v) b[v] = load<L, T>(panel + v * kStep);
    for (int m = 0; m < M; ++m)
      for (int v = 0; v < V; ++v) sum[m][v] += b[v] * a[m * strip.row_stride];
  }
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < V; ++v) store<L, T>(out + m * ldo + v * kStep, sum[m][v]);
}

// M rows by V vectors of 64 bytes, in tiles that fit the level's registers.
template <typename L, int M, int V, typename T>
DC_INLINE void vector_tile(const Strip<T>& strip, const T* panel, int64_t width, bool accumulate, T* out, int64_t ldo) {
  if constexpr (L::kLevel == Level::avx512) {
    register_tile<L, M, V>(strip, panel, width, accumulate, out, ldo);
  } else {
    constexpr int kAll = V * Register<L, T>::kParts, kAcross = L::kLevel == Level::avx2 && kAll % 3 == 0 ? 3 : 2;
    constexpr int kDown = M < 4 ? M : 4;
    constexpr int64_t kStep = kAcross * Register<L, T>::kLanes;
    for (int64_t v = 0; v < kAll / kAcross * kStep; v += kStep)
      for (int64_t m = 0; m < M; m += kDown)
        register_tile<L, kDown, kAcross>(
            Strip<T>{strip.data + m * strip.row_stride, strip.depth, strip.depth_stride, strip.row_stride}, panel + v,
            width, accumulate, out + m * ldo + v, ldo);
  }
}

// f(vectors), the number of 64-byte vectors that `cols` of a panel fill as a compile-time constant: 1 to 3.
template <typename T, typename F>
DC_INLINE void with_vectors(int64_t cols, const F& f) {
  switch (ceil_div(cols, kLanes<T>)) {
    case 1: f(std::integral_constant<int, 1>{}); break;
    case 2: f(std::integral_constant<int, 2>{}); break;
    default: f(std::integral_constant<int, 3>{}); break;
  }
}

}  // namespace deepclust::cpu
