// Sums over a block in a fixed order: the same bits on every run.
#pragma once

#include "simt.h"

namespace deepclust::cuda {

inline constexpr int kWarp = 32;
inline constexpr int kThreads = 256;  // of every block here: a power of two of warps
inline constexpr int kWarps = kThreads / kWarp;

// The sum over the warp's 32 lanes, in all of them. Every lane adds in the same order: a butterfly is symmetric.
template <typename T>
DC_DEVICE T warp_sum(T value) {
  DC_UNROLL
  for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_xor_sync(kFullMask, value, step);
  return value;
}

// The sum over all kThreads threads, in all of them. Every call uses the same shared memory: a DC_SYNC must lie between
// two calls.
DC_DEVICE double block_sum(double value) {
  DC_SHARED(double, parts, kWarps);
  value = warp_sum(value);
  if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = value;
  DC_SYNC();
  double sum = 0;
  DC_UNROLL
  for (int warp = 0; warp < kWarps; ++warp) sum += parts[warp];
  return sum;
}

}  // namespace deepclust::cuda
