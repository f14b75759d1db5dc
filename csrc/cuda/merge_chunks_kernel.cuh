// The k best of many sorted lists of k <= 64, for knn's search in chunks: the lists of up to 528 chunks a row.
//
// A warp keeps the best 64 places in registers, two a lane, and takes up list after list: the lower of place e here and
// place 63 - e there are the 64 lowest of both, rising and then falling, and six exchanges sort them (the last half of
// a bitonic network). Four lists are read at once. Few chunks are a warp's work; with more, eight warps share a row's
// lists, and the first merges what they have found. The total order of ranked.cuh leaves one result, whoever takes
// which list.
//
// Estimate for an H100 (1.755 GHz) from nvcc's instructions at sm_90, float32: 127 instructions a list, 20 of them
// shuffles, in six dependent steps: 280 cycles, and 600 for every four lists' reads. 66 lists a warp and seven at the
// end: 30,000 cycles or 17 us for a row, and no more for 132 of them. By one thread an entry, which looked for its rank
// in all 527 other lists in turn, it was 2600 dependent reads, 600,000 cycles or .35 ms.
#pragma once

#include "knn_kernel.cuh"

namespace deepclust::cuda {

template <typename Key>
struct WarpList {
  static constexpr int kPlaces = 2 * kWarp;
  Ranked<Key> own[2];  // places lane and 32 + lane

  // A list of `count` in the order that merge() takes, from its last place on.
  DC_DEVICE static WarpList reversed(const RankedList<Key>& list, int count) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    WarpList read;
    DC_UNROLL
    for (int slot = 0; slot < 2; ++slot) {
      const int e = kPlaces - 1 - slot * kWarp - lane;
      read.own[slot] = e < count ? list.at(e) : Ranked<Key>::none();
    }
    return read;
  }
  DC_DEVICE static WarpList empty() { return {{Ranked<Key>::none(), Ranked<Key>::none()}}; }

  DC_DEVICE void merge(const WarpList& other) {
    DC_UNROLL
    for (int slot = 0; slot < 2; ++slot)
      if (other.own[slot].before(own[slot])) own[slot] = other.own[slot];
    if (own[1].before(own[0])) {
      const Ranked<Key> low = own[1];
      own[1] = own[0];
      own[0] = low;
    }
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    DC_UNROLL
    for (int step = kWarp / 2; step > 0; step /= 2) {
      DC_UNROLL
      for (int slot = 0; slot < 2; ++slot) {
        const Ranked<Key> there{__shfl_xor_sync(kFullMask, own[slot].key, step),
                                __shfl_xor_sync(kFullMask, own[slot].index, step)};
        // The lower lane takes the lower one; of equal ones, which are places without a neighbour, either.
        if (there.before(own[slot]) == ((lane & step) == 0)) own[slot] = there;
      }
    }
  }
};

// A row to `row_warps` warps, 1 or all of a block.
template <typename T>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads) merge_chunks(const KnnLists<T> task, int64_t rows, int row_warps) {
  using Key = key_t<T>;
  using List = WarpList<Key>;
  constexpr int kAhead = 4;
  DC_SHARED(Key, keys, kWarps * List::kPlaces);
  DC_SHARED(uint32_t, indices, kWarps* List::kPlaces);
  const KnnPlan& plan = task.input.plan;
  const int k = static_cast<int>(plan.k), lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, part = warp % row_warps;
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * kWarps + warp) / row_warps;
  const int64_t chunks = row < rows ? plan.chunks : 0;
  List best = List::empty();
  for (int64_t first = part; first < chunks; first += kAhead * row_warps) {
    List next[kAhead];
    DC_UNROLL
    for (int i = 0; i < kAhead; ++i) {
      const int64_t chunk = first + i * row_warps;
      next[i] = List::reversed(task.partials.from((row * chunks + chunk) * k), chunk < chunks ? k : 0);
    }
    DC_UNROLL
    for (int i = 0; i < kAhead; ++i) best.merge(next[i]);
  }
  if (row_warps > 1) {
    const RankedList<Key> all{keys, indices};
    DC_UNROLL
    for (int slot = 0; slot < 2; ++slot) all.set(warp * List::kPlaces + slot * kWarp + lane, best.own[slot]);
    DC_SYNC();
    if (warp > 0) return;
    for (int other = 1; other < row_warps; ++other)
      best.merge(List::reversed(all.from(other * List::kPlaces), List::kPlaces));
  }
  if (row >= rows) return;
  DC_UNROLL
  for (int slot = 0; slot < 2; ++slot)
    if (slot * kWarp + lane < k) task.out.set(row * k + slot * kWarp + lane, best.own[slot]);
}

}  // namespace deepclust::cuda
