// initial_clusters on the GPU: weakly connected components of the graph of first neighbours, numbered by first member.
//
// A forest over the points, parent[i] <= i. `join_neighbours`, a thread an edge, looks for the roots of both ends and
// hangs the higher below the lower by atomicCAS; where another thread was faster, it goes on from the lower root that
// it has found there. So every turn of a thread has a lower root than the one before: it ends, without rounds and
// without the host. Whatever the order, in the end both ends of every edge stand in one tree, and its root is its
// lowest member: the labels are the same on every run. Walks halve their paths: a write replaces a parent by a
// grandparent, which stays an ancestor whatever others write. The loads are volatile, so that no walk stays on a value
// in the first-level cache.
//
// Then `find_roots` and count them by chunk, `number_roots` by prefix sums, `name_members`: five launches.
//
// Estimate for an H100 at n = 70,000: some 20 loads out of the second-level cache a point, 1.4 million of 32 bytes, a
// few microseconds; the launches bound it, 15 us.
#pragma once

#include "initial_clusters.h"
#include "scan.cuh"

namespace deepclust::cuda {

struct Components {
  int* parent;  // [n]
  int* number;  // [n]: of a root, what its component is called
  int* roots;   // [chunks]

  Components(Workspace& memory, const ComponentsPlan& plan)
      : parent(memory.take<int>(plan.n)), number(memory.take<int>(plan.n)), roots(memory.take<int>(plan.chunks)) {}
};

DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads)
    start_components(const ComponentsPlan plan, const Components all, unsigned long long* bad_row) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i == 0) *bad_row = ~0ull;
  if (i < plan.n) all.parent[i] = static_cast<int>(i);
}

template <bool kHalve>
DC_DEVICE int root_of(int* parent, int i) {
  volatile int* const now = parent;
  for (;;) {
    const int above = now[i];
    if (above == i) return i;
    const int next = now[above];
    if (next == above) return above;
    if constexpr (kHalve) now[i] = next;
    i = next;
  }
}

DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads) join_neighbours(const ComponentsPlan plan, const int64_t* indices,
                                                          const Components all, unsigned long long* bad_row) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= plan.n) return;
  const int64_t neighbour = indices[i * plan.k];
  if (neighbour < 0 || neighbour >= plan.n) {
    atomicMin(bad_row, static_cast<unsigned long long>(i));
    return;
  }
  int a = root_of<true>(all.parent, static_cast<int>(i)), b = root_of<true>(all.parent, static_cast<int>(neighbour));
  while (a != b) {
    const int high = a < b ? b : a, low = a < b ? a : b;
    const int found = atomicCAS(all.parent + high, high, low);
    if (found == high) return;
    a = root_of<true>(all.parent, found);  // below `high`: somebody else has hung it up
    b = root_of<true>(all.parent, low);
  }
}

// Every point's parent becomes its root; a block a chunk. Nobody may halve a path here: a write that comes late would
// put an ancestor in the place of a root.
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads) find_roots(const ComponentsPlan plan, const Components all) {
  const int64_t begin = blockIdx.x * plan.chunk;
  const int64_t end = begin + plan.chunk < plan.n ? begin + plan.chunk : plan.n;
  double roots = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const int root = root_of<false>(all.parent, static_cast<int>(i));
    all.parent[i] = root;
    roots += root == i;
  }
  roots = block_sum(roots);
  if (threadIdx.x == 0) all.roots[blockIdx.x] = static_cast<int>(roots);
}

DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads) number_roots(const ComponentsPlan plan, const Components all) {
  double before = 0;
  for (int64_t chunk = threadIdx.x; chunk < blockIdx.x; chunk += kThreads) before += all.roots[chunk];
  int base = static_cast<int>(block_sum(before));
  const int64_t begin = blockIdx.x * plan.chunk;
  const int64_t end = begin + plan.chunk < plan.n ? begin + plan.chunk : plan.n;
  for (int64_t first = begin; first < end; first += kThreads) {
    const int64_t i = first + threadIdx.x;
    const int root = i < end && all.parent[i] == i ? 1 : 0;
    int total;
    const int through = block_scan(root, total);
    if (root != 0) all.number[i] = base + through - 1;
    base += total;
    DC_SYNC();  // the scan's memory is used again
  }
}

DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads)
    name_members(const ComponentsPlan plan, const Components all, int64_t* labels) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < plan.n) labels[i] = all.number[all.parent[i]];
}

}  // namespace deepclust::cuda
