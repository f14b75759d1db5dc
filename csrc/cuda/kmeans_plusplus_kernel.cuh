// k-means++ seeding, the CPU's method (cpu/kmeans/kmeans_plusplus.h): draw a point by its weight times a stale upper
// bound of D^2, compute the true one, accept with probability true / stale; bring all bounds up to date whenever the
// seeds have doubled, or 32 draws of one seed were rejected.
//
// A round is three launches. `draw_seeds`, one block a matrix, draws until a pass over all points is due, which is half
// of all seeds at once in the last rounds; `nearest_centroids` lowers the weights by the seeds that wait;
// `sum_distances` adds them up in blocks of 1024. So K seeds take log2 K + 1 rounds without a word from the host, which
// looks only once whether rejections have asked for more.
//
// The same generator gives the same numbers as on the CPU. Weights are rounded in another order, and so are their sums:
// a number that falls within rounding of a bound between two points may choose the other one. That is rare (about 1e-7
// a draw in float32) but possible: seeds usually agree with the CPU's, and are not promised to.
//
// Estimate for an H100 (1.755 GHz; .6 us for a read from memory, .03 for a barrier), 1,000,000 x 256, 100 seeds: a draw
// is a walk over 977 sums and one over 1024 weights, each in one pass, four a thread: 1.5 us each; the true distance by
// eight lanes a seed, two slabs each, 2.5 us; the sum anew, 1.2: 7 us by one block, where walks in steps of 256 and a
// distance by one thread made it 30. Some 450 draws with those rejected: 3 ms. Seven passes over x: six of up to 16
// seeds by tiles of 16 columns, .68 ms each as measured for ten clusters, one of 32, 1.2: 5.3 ms, where tiles of 64
// columns took 1.64 each. Together 8 to 9 ms; 25 were measured on an H200 before. More blocks a draw would save little.
#pragma once

#include "../common/random.h"
#include "../common/seeding_rule.h"
#include "kmeans_assign_kernel.cuh"
#include "kmeans_plusplus.h"
#include "lane_value.cuh"
#include "scan.cuh"

namespace deepclust::cuda {

// Where the drawing of one matrix stands.
struct SeedingState {
  RandomStream random;
  int64_t drawn, known;  // seeds; those that the weights know of
  int32_t rejected;      // draws of the present seed
};

template <typename T>
struct SeedingSpace {
  T* squared;            // [batch, n]: D^2, or what it was; 1 until the first draw by weight
  double* sums;          // [batch, blocks]: of w D^2
  SeedingState* states;  // [batch]
  int64_t* range;        // [batch, 2]: the seeds that wait for a pass

  SeedingSpace(Workspace& memory, const SeedingPlan& plan)
      : squared(memory.take<T>(plan.batch * plan.n)),
        sums(memory.take<double>(plan.batch * plan.blocks)),
        states(memory.take<SeedingState>(plan.batch)),
        range(memory.take<int64_t>(plan.batch * 2)) {}
};

template <typename T>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads)
    start_states(const SeedingPlan plan, const SeedingSpace<T> space, int64_t seed, RowFlag* unfinished) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  const T before = plan.weights == nullptr ? static_cast<T>(INFINITY) : T(1);
  for (int64_t i = thread; i < plan.batch * plan.n; i += step) space.squared[i] = before;
  for (int64_t b = thread; b < plan.batch; b += step)
    space.states[b] = {RandomStream(static_cast<uint64_t>(seed), static_cast<uint64_t>(b)), 0, 0, 0};
  if (thread == 0) *unfinished = static_cast<RowFlag>(plan.batch);
}

// Where the running sum of the values at [first, last) passes `target`, or with kShare that share of their sum;
// `target` is lowered by what comes before. Where rounding carries it past the end: the last value that is not 0. -1
// where all are. A thread has a run of neighbours, and the one in whose run it happens walks along it again.
template <bool kShare, typename F>
DC_DEVICE int64_t walk(const F& value_at, int64_t first, int64_t last, double& target) {
  DC_SHARED(int, crossing, 2);  // the first thread that passes the target; the last that holds more than 0
  DC_SHARED(double, rest, 1);
  DC_SHARED(int64_t, place, 1);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t run = ceil_div(last - first, kThreads), begin = first + thread * run;
  const int64_t beyond = begin + run, end = beyond < last ? beyond : last;
  if (thread == 0) {
    crossing[0] = kThreads;
    crossing[1] = -1;
  }
  double own = 0, total;
  DC_UNROLL_BY(4)
  for (int64_t i = begin; i < end; ++i) own += value_at(i);
  const double through = block_scan(own, total);  // its barrier shows `crossing` to all
  const double goal = kShare ? target * total : target;
  if (own > 0.0) {
    if (through > goal) atomicMin(&crossing[0], thread);
    atomicMax(&crossing[1], thread);
  }
  DC_SYNC();
  const int hit = crossing[0], best = hit < kThreads ? hit : crossing[1];
  if (best < 0) return -1;
  if (thread == best) {
    double before = through - own;
    rest[0] = goal - before;
    for (int64_t i = begin; i < end; ++i) {
      const double value = value_at(i);
      if (!(value > 0.0)) continue;
      place[0] = i;
      rest[0] = goal - before;
      before += value;
      if (before > goal) break;
    }
  }
  DC_SYNC();
  target = rest[0];
  return place[0];
}

template <typename E>
struct SeedingDraws {
  using T = accumulator_t<E>;
  SeedingPlan plan;
  SeedingSpace<T> space;
  const E* x;
  int64_t* seeds;  // [batch, clusters]
  T* centroids;    // [batch, clusters, d]
  RowFlag* unfinished;
};

// One matrix's drawing, by a block whose threads all hold the same state.
template <typename E>
struct MatrixDraws {
  using T = accumulator_t<E>;
  const SeedingDraws<E>& all;
  int64_t item;
  SeedingState state;

  DC_DEVICE T* squared() const { return all.space.squared + item * all.plan.n; }
  DC_DEVICE double* sums() const { return all.space.sums + item * all.plan.blocks; }
  DC_DEVICE int64_t* seeds() const { return all.seeds + item * all.plan.clusters; }
  DC_DEVICE const E* row(int64_t i) const { return all.x + (item * all.plan.n + i) * all.plan.d; }
  DC_DEVICE T* centroid(int64_t k) const { return all.centroids + (item * all.plan.clusters + k) * all.plan.d; }

  DC_DEVICE double weight(int64_t i) const { return weighted(squared()[i], all.plan.weights, item * all.plan.n + i); }
  // The point where the running sum of w D^2 passes a share of all.
  DC_DEVICE int64_t find(double share) const {
    const int64_t block = walk<true>([&](int64_t i) { return sums()[i]; }, 0, all.plan.blocks, share);
    if (block < 0) return -1;
    const int64_t end = (block + 1) * kWeightBlock;
    return walk<false>([&](int64_t i) { return weight(i); }, block * kWeightBlock, end < all.plan.n ? end : all.plan.n,
                       share);
  }
  DC_DEVICE void set_squared(int64_t i, T value) const {
    if (threadIdx.x == 0) squared()[i] = value;
    DC_SYNC();
    const double sum = sum_distance_block(all.space.squared, all.plan.weights, all.plan.n, item, i / kWeightBlock);
    if (threadIdx.x == 0) sums()[i / kWeightBlock] = sum;
    DC_SYNC();
  }
  // D^2 of point i where the seeds that wait are counted in.
  DC_DEVICE T true_squared(int64_t i) const {
    DC_SHARED(T, least, kWarps);
    T own = squared()[i];
    if (state.known == state.drawn) return own;
    for (int64_t k0 = state.known; k0 < state.drawn; k0 += kThreads / kValueLanes) {
      const int64_t k = k0 + threadIdx.x / kValueLanes;  // beyond the last: that once more
      const T* const seed = centroid(k < state.drawn ? k : state.drawn - 1);
      const T distance = value_by_lanes<RowValue::kSquaredDistance>(row(i), seed, all.plan.d);
      own = distance < own ? distance : own;
    }
    DC_UNROLL
    for (int step = kWarp / 2; step > 0; step /= 2) {
      const T other = __shfl_xor_sync(kFullMask, own, step);
      own = other < own ? other : own;
    }
    if (threadIdx.x % kWarp == 0) least[threadIdx.x / kWarp] = own;
    DC_SYNC();
    DC_UNROLL
    for (int warp = 0; warp < kWarps; ++warp) own = least[warp] < own ? least[warp] : own;
    return own;
  }
  // By weight; then D^2 is not known of any point.
  DC_DEVICE int64_t first_by_weight() {
    const int64_t found = find(state.random.uniform()), seed = found < 0 ? 0 : found;
    // The seed's own is written by `take`, without a barrier between.
    for (int64_t i = threadIdx.x; i < all.plan.n; i += kThreads)
      if (i != seed) squared()[i] = static_cast<T>(INFINITY);
    return seed;
  }
  // Of the points that are no seeds and, where there is any of those, of weight above 0, each equally likely.
  DC_DEVICE int64_t any_other_by_weight() {
    const double* const weights = all.plan.weights + item * all.plan.n;
    bool all_count = false;
    const auto counts = [&](int64_t i) {
      bool is = all_count || weights[i] > 0.0;
      for (int64_t k = 0; is && k < state.drawn; ++k) is = seeds()[k] != i;
      return is ? 1.0 : 0.0;
    };
    double candidates = 0;
    for (int64_t i = threadIdx.x; i < all.plan.n; i += kThreads) candidates += counts(i);
    candidates = block_sum(candidates);
    all_count = candidates == 0;
    double rank = static_cast<double>(
        state.random.below(all_count ? all.plan.n - state.drawn : static_cast<int64_t>(candidates)));
    return walk<false>(counts, 0, all.plan.n, rank);
  }
  // Every point coincides with a seed: one of the others, each equally likely.
  DC_DEVICE int64_t any_other() {
    if (all.plan.weights != nullptr) return any_other_by_weight();
    const int64_t rank = state.random.below(all.plan.n - state.drawn);
    // The lowest i with `rank` points before it that are no seeds; more seeds come in sight as i grows.
    for (int64_t i = rank;;) {
      double seen = 0;
      for (int64_t k = threadIdx.x; k < state.drawn; k += kThreads) seen += seeds()[k] <= i ? 1 : 0;
      const int64_t next = rank + static_cast<int64_t>(block_sum(seen));
      DC_SYNC();
      if (next == i) return i;
      i = next;
    }
  }
  // The next seed, or -1 where a pass must come first.
  DC_DEVICE int64_t draw() {
    if (state.drawn == 0) return all.plan.weights != nullptr ? first_by_weight() : state.random.below(all.plan.n);
    for (;; ++state.rejected) {
      if (state.rejected == kRejections && state.known < state.drawn) return -1;
      const int64_t i = find(state.random.uniform());
      if (i < 0) return any_other();
      const T stale = squared()[i], fresh = true_squared(i);
      if (fresh == stale || state.random.uniform() * static_cast<double>(stale) < static_cast<double>(fresh)) return i;
      set_squared(i, fresh);
    }
  }
  DC_DEVICE void take(int64_t i) {
    if (threadIdx.x == 0) seeds()[state.drawn] = i;
    for (int64_t j = threadIdx.x; j < all.plan.d; j += kThreads) centroid(state.drawn)[j] = read(row(i)[j]);
    set_squared(i, T(0));
    ++state.drawn;
    state.rejected = 0;
  }
};

// Draws until a pass is due or all seeds are there.
template <typename E>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads, 1) draw_seeds(const SeedingDraws<E> all) {
  const int64_t item = blockIdx.x, clusters = all.plan.clusters;
  MatrixDraws<E> matrix{all, item, all.space.states[item]};
  SeedingState& state = matrix.state;
  if (state.drawn == clusters) return;
  // A pass has come between this call and the last.
  state.known = state.drawn;
  bool pass = false;
  while (state.drawn < clusters && !pass) {
    const int64_t seed = matrix.draw();
    if (seed >= 0) matrix.take(seed);
    pass = seed < 0 || worth_a_pass(state.drawn - state.known, state.known);
  }
  if (threadIdx.x != 0) return;
  const bool finished = state.drawn == clusters;
  all.space.states[item] = state;
  all.space.range[item * 2] = state.known;
  all.space.range[item * 2 + 1] = finished ? state.known : state.drawn;
  if (finished) atomicAdd(all.unfinished, ~RowFlag{0});
}

}  // namespace deepclust::cuda
