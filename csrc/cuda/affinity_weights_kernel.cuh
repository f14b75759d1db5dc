// affinity_weights on the GPU: w = exp(-d / sigma2) over the squared distances of a k-NN graph, sigma2 = a times their
// mean.
//
// Two launches, a block a chunk. `sum_chunks` adds each chunk in double; `weigh` adds the chunks' sums, the same way in
// every block, and writes the chunk's weights. Sums have a fixed order: the same bits on every run, though not those of
// the CPU, which adds one after another; both are double, and agree to 1e-13 or so.
//
// Estimate for an H100 at 70,000 x 20: the distances twice and the weights once are 17 MB, 5 us and mostly in the
// second-level cache; the launches cost as much.
#pragma once

#include "../common/half.h"
#include "affinity_weights.h"
#include "reduce.cuh"

namespace deepclust::cuda {

// sums [chunks]: NaN where a distance is negative or no number.
template <typename T>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads) sum_chunks(const AffinityPlan plan, const T* distances, double* sums) {
  const int64_t begin = blockIdx.x * plan.chunk;
  const int64_t end = begin + plan.chunk < plan.count ? begin + plan.chunk : plan.count;
  double sum = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const double d = static_cast<double>(distances[i]);
    sum += d >= 0 ? d : static_cast<double>(NAN);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

template <typename T>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads) weigh(const AffinityPlan plan, const T* distances, const double a,
                                                const double* sums, T* weights, T* sigma2, int64_t* bad) {
  double sum = 0;
  for (int64_t chunk = threadIdx.x; chunk < plan.chunks; chunk += kThreads) sum += sums[chunk];
  sum = block_sum(sum);
  const double scale = plan.count == 0 ? 0.0 : a * (sum / static_cast<double>(plan.count));
  if (blockIdx.x == 0 && threadIdx.x == 0) {
    *sigma2 = static_cast<T>(scale);
    *bad = scale < static_cast<double>(INFINITY) ? 0 : 1;
  }
  const int64_t begin = blockIdx.x * plan.chunk;
  const int64_t end = begin + plan.chunk < plan.count ? begin + plan.chunk : plan.count;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads)
    weights[i] = scale == 0 ? T(1) : exp(static_cast<T>(-static_cast<double>(distances[i]) / scale));
}

}  // namespace deepclust::cuda
