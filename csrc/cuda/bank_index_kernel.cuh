// The first index that is not in the memory bank. One pass over a few KB: launch latency alone.
#pragma once

#include "bank_index.h"
#include "reduce.cuh"

namespace deepclust::cuda {

// 256 places a block; the minimum by an integer atomic, which has one outcome in any order.
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads)
    first_bad_index(const int64_t* index, int64_t count, int64_t lowest, int64_t rows, unsigned long long* bad) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count && (index[i] < lowest || index[i] >= rows)) atomicMin(bad, static_cast<unsigned long long>(i));
}

}  // namespace deepclust::cuda
