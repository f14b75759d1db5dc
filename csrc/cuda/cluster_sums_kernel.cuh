// Sums of the members of every cluster as 64-bit integers, the CPU's (common/fixed_point.h): exact in any order, so
// integer atomics may add them, and only the points that moved are touched.
//
// A point that moves is two events, one for either cluster. They are sorted by cluster (cluster_moves_kernel.cuh);
// their order within a cluster is left to chance, for it does not show. Then every run of 64 events is added up in a
// register a column, eight entries on their way at a time, and goes to memory once a cluster: an atomic for every 64
// events and column where clusters are large. Lanes read neighbouring columns of a row.
//
// Means and ranges of the columns, on which the integers rest, are summed in double in the CPU's own order: the same
// labels give the same sums and centroids on either.
//
// Estimates for an H100 (132 multiprocessors at 1.755 GHz, four instructions a cycle each, 3.35 TB/s) from nvcc's
// instructions at sm_90, 1,000,000 x 256, ten clusters, half of the points moving: a million events x 256 columns at 64
// instructions an event and warp, .55 ms; 1 GB of rows, .3 ms. One entry at a time it was bound by latency: 64 x 1.2 us
// a run, 15 waves of runs, 1.1 ms. Before the first iteration: the columns' sums, in the CPU's order, keep fourteen
// reads of a thread on their way on 64 multiprocessors, .9 ms (eight: 1.6); squares in 528 blocks are bound by memory,
// .3 ms (in 64 blocks: 3).
#pragma once

#include "../common/arithmetic.h"
#include "../common/fixed_point.h"
#include "../common/macros.h"
#include "kmeans.h"
#include "kmeans_assign_kernel.cuh"
#include "scan.cuh"
#include "workspace.h"

namespace deepclust::cuda {

using Integer = unsigned long long;  // as atomics take it; sums and counts wrap like int64

DC_DEVICE int64_t signed_of(Integer value) {
  return static_cast<int64_t>(value);
}

// What the iterations keep of the clusters.
template <typename T>
struct ClusterSums {
  T* mean;                 // [batch, d]
  double* scale;           // [batch, d] of the integers
  double* grain;           // [batch, d]: 1 / scale, exact as well
  double* part_sums;       // [batch, passes, d]
  T* part_least;           // [batch, passes, d]
  T* part_largest;         // [batch, passes, d]
  double* part_squares;    // [batch, squares]: of |x - mean|^2
  Integer* sums;           // [batch, clusters, d]
  Integer* count;          // [batch, clusters]: members
  Integer* total;          // [batch, clusters]: their weights in units, where there are weights
  Integer* events;         // [batch, clusters]: how many
  Integer* cursor;         // [batch, clusters]: where a cluster's next event goes
  int64_t* event_total;    // [batch]
  int32_t* vacant;         // [batch]: whether a cluster has no members
  unsigned* arrived;       // [batch]: blocks or warps that have done their part of a launch
  int64_t* event_point;    // [batch, 2 n]: a point that came, or ~point for one that left
  int32_t* event_cluster;  // [batch, 2 n]
  int32_t* fresh;          // [batch, n]: the labels of this iteration
  int32_t* done;           // [batch]: whether it has settled
  int32_t* suspect;        // []: whether a column's sum is not finite

  ClusterSums(Workspace& memory, const KMeansPlan& plan)
      : mean(memory.take<T>(plan.batch * plan.d)),
        scale(memory.take<double>(plan.batch * plan.d)),
        grain(memory.take<double>(plan.batch * plan.d)),
        part_sums(memory.take<double>(plan.batch * plan.passes * plan.d)),
        part_least(memory.take<T>(plan.batch * plan.passes * plan.d)),
        part_largest(memory.take<T>(plan.batch * plan.passes * plan.d)),
        part_squares(memory.take<double>(plan.batch * plan.squares)),
        sums(memory.take<Integer>(plan.batch * plan.clusters * plan.d)),
        count(memory.take<Integer>(plan.batch * plan.clusters)),
        total(memory.take<Integer>(plan.weights == nullptr ? 0 : plan.batch * plan.clusters)),
        events(memory.take<Integer>(plan.batch * plan.clusters)),
        cursor(memory.take<Integer>(plan.batch * plan.clusters)),
        event_total(memory.take<int64_t>(plan.batch)),
        vacant(memory.take<int32_t>(plan.batch)),
        arrived(memory.take<unsigned>(plan.batch)),
        event_point(memory.take<int64_t>(plan.batch * 2 * plan.n)),
        event_cluster(memory.take<int32_t>(plan.batch * 2 * plan.n)),
        fresh(memory.take<int32_t>(plan.batch * plan.n)),
        done(memory.take<int32_t>(plan.batch)),
        suspect(memory.take<int32_t>(1)) {}
};

DC_DEVICE int64_t thread_index() {
  return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}
DC_DEVICE int64_t thread_count() {
  return static_cast<int64_t>(gridDim.x) * kThreads;
}

// What the point at `at` of all matrices' counts by. Those of less than half a unit are no members.
DC_DEVICE double weight_at(const KMeansPlan& plan, int64_t at) {
  return plan.weights == nullptr ? 1.0 : plan.weights[at];
}
DC_DEVICE Integer units_at(const KMeansPlan& plan, int64_t at) {
  return plan.weights == nullptr ? Integer{1} : static_cast<Integer>(weight_units(plan.weights[at], plan.unit));
}
// The weight of a cluster's members; their number where there are no weights.
template <typename T>
DC_DEVICE double cluster_weight(const KMeansPlan& plan, const ClusterSums<T>& clusters, int64_t cluster) {
  const Integer* const of = plan.weights == nullptr ? clusters.count : clusters.total;
  return static_cast<double>(signed_of(of[cluster])) * plan.unit;
}

// (item, pass, column) to a thread: sum, least and largest of the column over the rows of the pass.
template <typename E>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads)
    column_parts(const KMeansPlan plan, const ClusterSums<accumulator_t<E>> clusters, const E* x) {
  using T = accumulator_t<E>;
  const int64_t thread = thread_index();
  if (thread >= plan.batch * plan.passes * plan.d) return;
  const int64_t j = thread % plan.d, part = thread / plan.d;
  const int64_t begin = part % plan.passes * plan.pass_rows, beyond = begin + plan.pass_rows;
  const int64_t end = beyond < plan.n ? beyond : plan.n;
  const E* const column = x + part / plan.passes * plan.n * plan.d + j;
  double sum = 0;
  T least = read(column[begin * plan.d]), largest = least;
  DC_UNROLL_BY(32)
  for (int64_t i = begin; i < end; ++i) {
    const T value = read(column[i * plan.d]);
    sum += static_cast<double>(value);
    least = value < least ? value : least;
    largest = value > largest ? value : largest;
  }
  clusters.part_sums[thread] = sum;
  clusters.part_least[thread] = least;
  clusters.part_largest[thread] = largest;
}

// (item, column) to a thread: its mean and the scale of its integers.
template <typename T>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads) finish_columns(const KMeansPlan plan, const ClusterSums<T> clusters) {
  const int64_t thread = thread_index();
  if (thread >= plan.batch * plan.d) return;
  const int64_t first = thread / plan.d * plan.passes * plan.d + thread % plan.d;
  double sum = 0;
  T least = clusters.part_least[first], largest = clusters.part_largest[first];
  for (int64_t pass = 0; pass < plan.passes; ++pass) {
    const int64_t at = first + pass * plan.d;
    sum += clusters.part_sums[at];
    least = clusters.part_least[at] < least ? clusters.part_least[at] : least;
    largest = clusters.part_largest[at] > largest ? clusters.part_largest[at] : largest;
  }
  if (!is_finite(sum)) atomicMax(clusters.suspect, 1);
  const T mean = static_cast<T>(sum / static_cast<double>(plan.n));
  const double above = static_cast<double>(largest) - static_cast<double>(mean);
  const double below = static_cast<double>(mean) - static_cast<double>(least);
  clusters.mean[thread] = mean;
  const double scale = fixed_point_scale(above > below ? above : below, plan.n);
  clusters.scale[thread] = scale;
  clusters.grain[thread] = 1.0 / scale;
}

// (item, part) to a block, a row to a warp.
template <typename E>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads)
    centred_squares(const KMeansPlan plan, const ClusterSums<accumulator_t<E>> clusters, const E* x) {
  const int64_t item = blockIdx.x / plan.squares, begin = blockIdx.x % plan.squares * plan.square_rows;
  const int64_t beyond = begin + plan.square_rows, end = beyond < plan.n ? beyond : plan.n;
  double sum = 0;
  for (int64_t i = begin + threadIdx.x / kWarp; i < end; i += kWarps) {
    const E* const row = x + (item * plan.n + i) * plan.d;
    double square = 0;
    DC_UNROLL_BY(4)
    for (int64_t j = threadIdx.x % kWarp; j < plan.d; j += kWarp) {
      const double y = static_cast<double>(read(row[j])) - static_cast<double>(clusters.mean[item * plan.d + j]);
      square += y * y;
    }
    sum += square * weight_at(plan, item * plan.n + i);
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) clusters.part_squares[blockIdx.x] = sum;
}

// An entry times its weight as an integer of its column. The scale is a power of two: only the weight rounds.
template <typename T>
DC_DEVICE int64_t fixed_point(T value, T mean, double weight, double scale) {
  const double shifted =
      fma((static_cast<double>(value) - static_cast<double>(mean)) * weight, scale, kFixedPointMagic);
  int64_t bits;
  memcpy(&bits, &shifted, sizeof(bits));
  return bits - kFixedPointBits;
}

// How events and columns are laid over the threads of blocks: `across` neighbouring columns, 256 / across runs.
struct SumCut {
  static constexpr int64_t kRun = 64;
  static constexpr int kAhead = 8;           // entries that are read at once
  int64_t across = 1, slices, runs, blocks;  // of one matrix

  explicit SumCut(const KMeansPlan& plan) {
    while (across < plan.d && across < kThreads) across *= 2;
    slices = ceil_div(plan.d, across);
    runs = kThreads / across;
    blocks = ceil_div(2 * plan.n, runs * kRun);
  }
};

// (item, slice of columns, runs of events) to a block, (run, column) to a thread.
template <typename E>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads)
    sum_moves(const KMeansPlan plan, const ClusterSums<accumulator_t<E>> clusters, const SumCut cut, const E* x) {
  const int64_t item = blockIdx.x / (cut.blocks * cut.slices), part = blockIdx.x % (cut.blocks * cut.slices);
  if (clusters.done[item] != 0) return;
  const int64_t run = part / cut.slices * cut.runs + threadIdx.x / cut.across;
  const int64_t j = part % cut.slices * cut.across + threadIdx.x % cut.across;
  const int64_t begin = run * SumCut::kRun, beyond = begin + SumCut::kRun, total = clusters.event_total[item];
  const int64_t end = beyond < total ? beyond : total;
  if (j >= plan.d || begin >= end) return;
  const auto mean = clusters.mean[item * plan.d + j];
  const double scale = clusters.scale[item * plan.d + j];
  const int64_t* const points = clusters.event_point + item * 2 * plan.n;
  const int32_t* const labels = clusters.event_cluster + item * 2 * plan.n;
  Integer* const column = clusters.sums + item * plan.clusters * plan.d + j;
  int64_t cluster = labels[begin], sum = 0;
  for (int64_t e0 = begin; e0 < end; e0 += SumCut::kAhead) {
    int64_t point[SumCut::kAhead];
    accumulator_t<E> entry[SumCut::kAhead];
    // All on their way before the first is needed; beyond the end the last once more.
    DC_UNROLL
    for (int i = 0; i < SumCut::kAhead; ++i) point[i] = points[e0 + i < end ? e0 + i : end - 1];
    DC_UNROLL
    for (int i = 0; i < SumCut::kAhead; ++i) {
      const int64_t row = point[i] < 0 ? ~point[i] : point[i];
      entry[i] = read(x[(item * plan.n + row) * plan.d + j]);
    }
    DC_UNROLL
    for (int i = 0; i < SumCut::kAhead; ++i) {
      if (e0 + i >= end) continue;
      if (labels[e0 + i] != cluster) {
        atomicAdd(&column[cluster * plan.d], static_cast<Integer>(sum));
        cluster = labels[e0 + i];
        sum = 0;
      }
      const int64_t row = point[i] < 0 ? ~point[i] : point[i];
      const int64_t value = fixed_point(entry[i], mean, weight_at(plan, item * plan.n + row), scale);
      sum += point[i] < 0 ? -value : value;
    }
  }
  atomicAdd(&column[cluster * plan.d], static_cast<Integer>(sum));
}

}  // namespace deepclust::cuda
