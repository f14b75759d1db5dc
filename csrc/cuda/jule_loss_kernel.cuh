// jule_loss on the GPU: the mean over triplets (a, p, n) of max(0, gamma |a - p|^2 - |a - n|^2 + margin), and its
// gradient 2 / triplets sum_j weight_ij (z_i - z_j). The weight of two samples is how many triplets that count they are
// the ends of, times gamma where they share a label, -1 where they do not.
//
// Three launches. `order_samples`, a warp a sample, counts its place in the order (label, index). `count_triplets`, a
// block an anchor and a warp a pair, draws the pair's negatives (common/triplet_rule.h; a lane draws one number of the
// pair's stream, and Floyd's rule is settled among lanes by shuffles), computes their distances, and counts them in the
// anchor's row of counts [B, B]: integers, so that the order of the atomics is no matter. `sum_gradients`, a block a
// sample, turns its row and column of counts into weights, and sums the edges in the order of samples. Nothing waits
// for the host: how many labels, pairs and triplets there are is counted where it is needed.
//
// Estimate for an H100 at (100, 160), 17 labels: 4,700 triplets are 2.3 MFLOP, the edges 3 MFLOP, z 64 KB: all far
// below a microsecond. A pair's chain of steps bounds it, 20 distances of 5 loads a lane at four at once, some 3 us;
// the three launches take about 10 us. From B = 1000 or so reading z out of the second-level cache bounds it: 4 d bytes
// a triplet, and as much for each of the B^2 edges. Memory: 4 B^2 bytes.
#pragma once

#include "../common/accumulator.h"
#include "../common/half.h"
#include "../common/triplet_rule.h"
#include "jule_loss.h"
#include "reduce.cuh"

namespace deepclust::cuda {

// The samples in the order (label, index); each array [size].
struct SampleOrder {
  int* order;  // the sample at each place
  int* place;  // of each sample
  int* begin;  // of each sample: the first place of its label
  int* end;    // and the place behind the last
};

struct JuleSpace {
  SampleOrder samples;
  double* sums;  // [size]: of each anchor's triplets
  int* counts;   // [size, size]: row a holds how many triplets of anchor a meet each sample, and count

  JuleSpace(Workspace& memory, const JulePlan& plan)
      : samples{memory.take<int>(plan.size), memory.take<int>(plan.size), memory.take<int>(plan.size),
                memory.take<int>(plan.size)},
        sums(memory.take<double>(plan.size)),
        counts(memory.take<int>(plan.size * plan.size)) {}
};

template <typename E>
struct JuleArguments {
  using T = accumulator_t<E>;
  JulePlan plan;
  JuleSpace space;
  const E* z;             // [size, d]
  const int64_t* labels;  // [size]
  const int64_t* seed;
  T gamma, margin;
  T* loss;
  T* z_grad;  // [size, d]
};

// A warp a sample.
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads)
    order_samples(const int64_t* labels, const int64_t size, const SampleOrder samples) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (i >= size) return;  // the whole warp
  const int64_t label = labels[i];
  int lower = 0, before = 0, equal = 0;
  for (int64_t j = lane; j < size; j += kWarp) {
    lower += labels[j] < label;
    before += labels[j] == label && j < i;
    equal += labels[j] == label;
  }
  lower = warp_sum(lower);
  before = warp_sum(before);
  equal = warp_sum(equal);
  if (lane != 0) return;
  samples.order[lower + before] = static_cast<int>(i);
  samples.place[i] = lower + before;
  samples.begin[i] = lower;
  samples.end[i] = lower + equal;
}

// What a warp counts over all samples.
struct BatchCounts {
  int64_t pairs, negatives;  // negatives: of each pair

  DC_DEVICE BatchCounts(const SampleOrder& samples, const JulePlan& plan) {
    int64_t labels = 0;
    pairs = 0;
    for (int64_t i = threadIdx.x % kWarp; i < plan.size; i += kWarp) {
      labels += samples.place[i] == samples.begin[i];
      pairs += samples.end[i] - samples.place[i] - 1;
    }
    labels = warp_sum(static_cast<long long>(labels));
    pairs = warp_sum(static_cast<long long>(pairs));
    negatives = labels <= 1 ? 0 : plan.n_negatives < labels - 1 ? plan.n_negatives : labels - 1;
  }
};

// A warp draws the ranks of a pair's negatives. ranks [count].
DC_DEVICE void draw_ranks(const RandomStream& stream, int64_t others, int count, int* ranks) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int first = 0; first < count; first += kWarp) {
    const int i = first + lane;
    // What number i takes where its rank is taken. Lanes beyond the count draw what nobody reads.
    const int last = static_cast<int>(others) - count + (i < count ? i : count - 1);
    RandomStream random = stream;
    random.skip(static_cast<uint64_t>(i));
    const int drawn = static_cast<int>(random.below(last + 1));
    int rank = drawn;
    for (int e = 0; e < first; ++e)
      if (ranks[e] == drawn) rank = last;
    for (int e = 0; e < kWarp - 1; ++e) {
      const int earlier = __shfl_sync(kFullMask, rank, e);  // settled, for lanes before e have been looked at
      if (lane > e && earlier == drawn) rank = last;
    }
    if (i < count) ranks[i] = rank;
    DC_SYNCWARP(kFullMask);
  }
}

// |z_a - z_j|^2 for kCount rows at once, by a warp.
template <int kCount, typename E>
DC_DEVICE void warp_distances(const E* a, const E* const (&rows)[kCount], int64_t d,
                              accumulator_t<E> (&distances)[kCount]) {
  using T = accumulator_t<E>;
  DC_UNROLL
  for (int r = 0; r < kCount; ++r) distances[r] = 0;
  for (int64_t t = threadIdx.x % kWarp; t < d; t += kWarp) {
    const T own = read(a[t]);
    DC_UNROLL
    for (int r = 0; r < kCount; ++r) {
      const T difference = own - read(rows[r][t]);
      distances[r] += difference * difference;
    }
  }
  DC_UNROLL
  for (int r = 0; r < kCount; ++r) distances[r] = warp_sum(distances[r]);
}

// A block an anchor. Dynamic shared memory: n_negatives ranks for each warp.
template <typename E>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads, 2) count_triplets(const JuleArguments<E> all) {
  using T = accumulator_t<E>;
  constexpr int kAtOnce = 4;
  DC_DYNAMIC_SHARED(int, shared_ranks);
  const SampleOrder& samples = all.space.samples;
  const int64_t anchor = blockIdx.x, size = all.plan.size, d = all.plan.d;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  int* const counts = all.space.counts + anchor * size;
  for (int64_t j = threadIdx.x; j < size; j += kThreads) counts[j] = 0;
  DC_SYNC();
  const int negatives = static_cast<int>(BatchCounts(samples, all.plan).negatives);
  int* const ranks = shared_ranks + warp * all.plan.n_negatives;
  const int begin = samples.begin[anchor], end = samples.end[anchor];
  const E* const own = all.z + anchor * d;
  double sum = 0;
  for (int place = samples.place[anchor] + 1 + warp; place < end && negatives > 0; place += kWarps) {
    const int positive = samples.order[place];
    draw_ranks(pair_stream(*all.seed, anchor, positive, size), size - (end - begin), negatives, ranks);
    const E* const near_row[1] = {all.z + positive * d};
    T near[1];
    warp_distances(own, near_row, d, near);
    const T limit = all.gamma * near[0] + all.margin;
    int counted = 0;
    for (int first = 0; first < negatives; first += kAtOnce) {
      const E* rows[kAtOnce];
      int negative[kAtOnce];
      T far[kAtOnce];
      DC_UNROLL
      for (int r = 0; r < kAtOnce; ++r) {
        const int e = first + r < negatives ? first + r : negatives - 1;
        negative[r] = samples.order[place_of_other(ranks[e], begin, end)];
        rows[r] = all.z + negative[r] * d;
      }
      warp_distances(own, rows, d, far);
      DC_UNROLL
      for (int r = 0; r < kAtOnce; ++r) {
        const T excess = limit - far[r];
        if (first + r >= negatives || excess <= T(0)) continue;  // NaN counts, and shows
        sum += static_cast<double>(excess);
        ++counted;
        if (lane == 0) atomicAdd(counts + negative[r], 1);
      }
    }
    if (lane == 0) counts[positive] = counted;
    DC_SYNCWARP(kFullMask);  // the ranks are drawn anew
  }
  const double total = block_sum(lane == 0 ? sum : 0.0);
  if (threadIdx.x == 0) all.space.sums[anchor] = total;
}

// (sample, kThreads columns of it) to a block; the first block finishes the loss as well.
template <typename E>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads, 4) sum_gradients(const JuleArguments<E> all) {
  using T = accumulator_t<E>;
  DC_SHARED(T, weights, kThreads);
  const SampleOrder& samples = all.space.samples;
  const int64_t size = all.plan.size, d = all.plan.d, across = (d + kThreads - 1) / kThreads;
  const BatchCounts batch(samples, all.plan);
  const double triplets = static_cast<double>(batch.pairs) * static_cast<double>(batch.negatives);
  if (blockIdx.x == 0) {
    double sum = 0;
    for (int64_t a = threadIdx.x; a < size; a += kThreads) sum += all.space.sums[a];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *all.loss = static_cast<T>(triplets > 0 ? sum / triplets : 0.0);
  }
  const int64_t i = blockIdx.x / across, column = blockIdx.x % across * kThreads + threadIdx.x;
  if (i >= size) return;  // the whole block: there is no sample at all
  const int begin = samples.begin[i], end = samples.end[i];
  const T own = column < d ? read(all.z[i * d + column]) : T(0);
  T sum = 0;
  for (int64_t first = 0; first < size; first += kThreads) {
    const int64_t mine = first + threadIdx.x;
    T weight = 0;
    if (mine < size) {
      const int place = samples.place[mine];
      const T count = static_cast<T>(all.space.counts[i * size + mine] + all.space.counts[mine * size + i]);
      weight = place >= begin && place < end ? all.gamma * count : -count;
    }
    weights[threadIdx.x] = weight;
    DC_SYNC();
    const int there = size - first < kThreads ? static_cast<int>(size - first) : kThreads;
    for (int j = 0; j < there; ++j)
      if (column < d && weights[j] != T(0)) sum += weights[j] * (own - read(all.z[(first + j) * d + column]));
    DC_SYNC();
  }
  if (column < d) all.z_grad[i * d + column] = triplets > 0 ? static_cast<T>(2.0 / triplets) * sum : T(0);
}

}  // namespace deepclust::cuda
