// Prefix sums and the best value over a block in a fixed order: the same bits on every run.
#pragma once

#include "reduce.cuh"

namespace deepclust::cuda {

// The sum of `value` over this thread and those before it, and over all kThreads in `total`. Every call uses the same
// shared memory: a DC_SYNC must lie between two calls.
template <typename T>
DC_DEVICE T block_scan(T value, T& total) {
  DC_SHARED(T, warp_totals, kWarps);
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  DC_UNROLL
  for (int step = 1; step < kWarp; step *= 2) {
    const T below = __shfl_up_sync(kFullMask, value, step);
    if (lane >= step) value += below;
  }
  if (lane == kWarp - 1) warp_totals[warp] = value;
  DC_SYNC();
  T before = 0;
  total = 0;
  DC_UNROLL
  for (int w = 0; w < kWarps; ++w) {
    if (w == warp) before = total;
    total += warp_totals[w];
  }
  return before + value;
}

// The largest value and where it is; of equal ones the lowest index. An index below 0 stands for nothing.
struct Best {
  double value = 0;
  int64_t index = -1;

  DC_DEVICE void offer(double other, int64_t at) {
    if (at < 0) return;
    if (index >= 0 && !(other > value) && !(other == value && at < index)) return;
    value = other;
    index = at;
  }
};

// The best over all kThreads threads, in all of them; as for block_scan, a DC_SYNC between two calls.
DC_DEVICE Best block_best(Best best) {
  DC_SHARED(double, warp_values, kWarps);
  DC_SHARED(long long, warp_indices, kWarps);
  DC_UNROLL
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const double value = __shfl_xor_sync(kFullMask, best.value, step);
    const long long index = __shfl_xor_sync(kFullMask, static_cast<long long>(best.index), step);
    best.offer(value, index);
  }
  if (threadIdx.x % kWarp == 0) {
    warp_values[threadIdx.x / kWarp] = best.value;
    warp_indices[threadIdx.x / kWarp] = best.index;
  }
  DC_SYNC();
  best = {};
  DC_UNROLL
  for (int warp = 0; warp < kWarps; ++warp) best.offer(warp_values[warp], warp_indices[warp]);
  return best;
}

}  // namespace deepclust::cuda
