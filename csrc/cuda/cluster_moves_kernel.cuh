// The points that move from cluster to cluster, as events sorted by cluster (cluster_sums_kernel.cuh says what for):
// counted, laid out, and put into place.
//
// Blocks of 2048 points count and place by themselves, in shared memory, and go to a cluster's counter in global memory
// once: ten clusters are ten addresses for all points. Where there are more clusters than a block has room for, there
// are as many addresses, and points go to these. The last block to have counted lays out the places.
//
// Estimates for an H100 (132 multiprocessors at 1.755 GHz, four instructions a cycle each) from nvcc's instructions at
// sm_90, 1,000,000 points, ten clusters, half of the points moving: counting reads 12 MB, 4 us, takes 40 instructions a
// point, and 489 blocks x 20 atomics on two lines of memory, 6 us. As an atomic a point and cluster, two million on
// those lines, it was 1.2 ms at one in .6 ns. Placing costs the same and writes 24 MB of events: 15 us; before, as many
// atomics as for counting, which were waited for.
#pragma once

#include "cluster_sums_kernel.cuh"

namespace deepclust::cuda {

// How the points of a matrix are laid over blocks that count and place events.
struct MoveCut {
  static constexpr int kOwn = 8;  // points of a thread
  static constexpr int64_t kPoints = kOwn * kThreads;
  static constexpr int64_t kCounted = 1024;  // clusters that a block has room to count by itself
  int64_t blocks;                            // of one matrix

  DC_HOST_DEVICE explicit MoveCut(const KMeansPlan& plan) : blocks(ceil_div(plan.n, kPoints)) {}
  DC_DEVICE static bool counts(const KMeansPlan& plan) { return plan.clusters <= kCounted; }
};

// Where the events of every cluster begin, and whether a cluster is empty: by one block, the last to have counted.
// Leaves the counts of events at 0 for the next iteration.
template <typename T>
DC_DEVICE void lay_out_moves(const KMeansPlan& plan, const ClusterSums<T>& clusters, int64_t item) {
  // From memory, not from this multiprocessor's cache.
  const volatile Integer* const counted = clusters.events;
  const volatile Integer* const members = clusters.count;
  Integer before = 0;
  int vacant = 0;
  for (int64_t k0 = 0; k0 < plan.clusters; k0 += kThreads) {
    const int64_t at = item * plan.clusters + k0 + threadIdx.x;
    const bool inside = k0 + threadIdx.x < plan.clusters;
    const Integer events = inside ? counted[at] : 0;
    Integer total;
    const Integer through = block_scan(events, total);
    if (inside) {
      if (members[at] == 0) vacant = 1;
      clusters.cursor[at] = before + through - events;
      clusters.events[at] = 0;
    }
    before += total;
    DC_SYNC();  // the scan's memory is free again
  }
  vacant = __syncthreads_or(vacant) != 0 ? 1 : 0;
  if (threadIdx.x != 0) return;
  clusters.event_total[item] = signed_of(before);
  clusters.vacant[item] = vacant;
}

// Counts the events and brings the counts of members up to date. (item, some points) to a block, which counts in
// shared memory and adds what it has counted, so that ten clusters are not ten addresses for all points at once. Many
// clusters are many addresses, and counted there.
template <typename T>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads)
    count_moves(const KMeansPlan plan, const ClusterSums<T> clusters, const int64_t* labels) {
  DC_SHARED(unsigned, events, MoveCut::kCounted);
  DC_SHARED(unsigned, members, MoveCut::kCounted);  // that came less those that left
  DC_SHARED(Integer, weights, MoveCut::kCounted);   // the same in units
  DC_SHARED(int, last, 1);
  const MoveCut cut(plan);
  const int64_t item = blockIdx.x / cut.blocks, begin = blockIdx.x % cut.blocks * MoveCut::kPoints;
  if (clusters.done[item] != 0) return;
  const int own = MoveCut::counts(plan) ? static_cast<int>(plan.clusters) : 0, thread = static_cast<int>(threadIdx.x);
  for (int k = thread; k < own; k += kThreads) {
    events[k] = members[k] = 0;
    weights[k] = 0;
  }
  DC_SYNC();
  const auto add = [&](int64_t cluster, Integer moved, Integer came, Integer weight) {
    const int64_t at = item * plan.clusters + cluster;
    if (moved != 0) atomicAdd(&clusters.events[at], moved);
    if (came != 0) atomicAdd(&clusters.count[at], came);
    if (plan.weights != nullptr && weight != 0) atomicAdd(&clusters.total[at], weight);
  };
  DC_UNROLL
  for (int i = 0; i < MoveCut::kOwn; ++i) {
    const int64_t row = begin + i * kThreads + thread, at = item * plan.n + row;
    if (row >= plan.n) continue;
    const int64_t from = labels[at], to = clusters.fresh[at];
    if (from == to) continue;
    const Integer units = units_at(plan, at);
    const auto count = [&](int64_t cluster, bool comes) {
      const Integer came = units == 0 ? 0 : comes ? Integer{1} : ~Integer{0}, weight = comes ? units : 0 - units;
      if (own == 0) return add(cluster, 1, came, weight);
      atomicAdd(events + cluster, 1u);
      if (units == 0) return;
      atomicAdd(members + cluster, static_cast<unsigned>(came));
      if (plan.weights != nullptr) atomicAdd(weights + cluster, weight);
    };
    count(to, true);
    if (from >= 0) count(from, false);
  }
  __threadfence();  // the counts are there before this block says so
  DC_SYNC();
  if (thread < kWarp) {
    for (int k = thread; k < own; k += kWarp)
      add(k, events[k], static_cast<Integer>(static_cast<int64_t>(static_cast<int>(members[k]))), weights[k]);
    __threadfence();
    DC_SYNCWARP(kFullMask);
    if (thread == 0) last[0] = atomicAdd(&clusters.arrived[item], 1u) + 1 == static_cast<unsigned>(cut.blocks);
  }
  DC_SYNC();
  if (last[0] != 1) return;
  __threadfence();
  if (thread == 0) clusters.arrived[item] = 0;
  lay_out_moves(plan, clusters, item);
}

// Puts the events into place, and the fresh labels into `labels`. A block asks once for the places of all its events of
// a cluster.
template <typename T>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads)
    place_moves(const KMeansPlan plan, const ClusterSums<T> clusters, int64_t* labels) {
  DC_SHARED(unsigned, events, MoveCut::kCounted);
  DC_SHARED(Integer, first, MoveCut::kCounted);
  const MoveCut cut(plan);
  const int64_t item = blockIdx.x / cut.blocks, begin = blockIdx.x % cut.blocks * MoveCut::kPoints;
  if (clusters.done[item] != 0) return;
  const int own = MoveCut::counts(plan) ? static_cast<int>(plan.clusters) : 0, thread = static_cast<int>(threadIdx.x);
  Integer* const cursor = clusters.cursor + item * plan.clusters;
  for (int k = thread; k < own; k += kThreads) events[k] = 0;
  DC_SYNC();
  int from[MoveCut::kOwn], to[MoveCut::kOwn];
  unsigned came[MoveCut::kOwn] = {}, left[MoveCut::kOwn] = {};  // places among the block's events of the cluster
  DC_UNROLL
  for (int i = 0; i < MoveCut::kOwn; ++i) {
    const int64_t row = begin + i * kThreads + thread, at = item * plan.n + row;
    from[i] = to[i] = -1;
    if (row >= plan.n) continue;
    from[i] = static_cast<int>(labels[at]);
    to[i] = clusters.fresh[at];
    if (from[i] == to[i] || own == 0) continue;
    came[i] = atomicAdd(events + to[i], 1u);
    if (from[i] >= 0) left[i] = atomicAdd(events + from[i], 1u);
  }
  DC_SYNC();
  for (int k = thread; k < own; k += kThreads)
    if (events[k] > 0) first[k] = atomicAdd(&cursor[k], static_cast<Integer>(events[k]));
  DC_SYNC();
  DC_UNROLL
  for (int i = 0; i < MoveCut::kOwn; ++i) {
    if (from[i] == to[i]) continue;
    const int64_t row = begin + i * kThreads + thread;
    const auto place = [&](int cluster, unsigned among, int64_t point) {
      const Integer at = own > 0 ? first[cluster] + among : atomicAdd(&cursor[cluster], Integer{1});
      clusters.event_point[item * 2 * plan.n + signed_of(at)] = point;
      clusters.event_cluster[item * 2 * plan.n + signed_of(at)] = cluster;
    };
    place(to[i], came[i], row);
    if (from[i] >= 0) place(from[i], left[i], ~row);
    labels[item * plan.n + row] = to[i];
  }
}

}  // namespace deepclust::cuda
