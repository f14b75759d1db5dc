// knn on the GPU for many neighbours: any k up to all candidates, by radix selection from a strip of costs.
//
// Lists of k in shared memory end at 64. Beyond, the keys of a strip of rows against all candidates go to global
// memory, as many rows as 256 MiB hold (a workspace that does not grow with n, until a single row fills it), and for
// every strip in turn:
//   costs    a block a tile of 64 x 64 (row_tile.cuh, the same bits as in the lists).
//   select   a block a row: the k-th (key, index) of the total order, 11 bits at a time from the top: a histogram of
//            the digit among those that share the digits above, and the bin in which the k-th falls. It stops as soon
//            as a bin is wanted whole; only where copies of the k-th key must be told apart do the digits of the index
//            follow. Then all up to the k-th are written, in any order: which they are does not depend on it.
//            Where a strip has few rows, because candidates are many, several blocks share one, each takes the k best
//            of its part, and a block more the k best of these: 264 blocks or more, and no more memory.
//   sort     runs of 1024 in shared memory, a bitonic network; then pairs of runs are merged, an entry to a thread,
//            which finds its rank in the other run by binary search. The total order leaves one result.
//
// Estimate for an H100, 60,000 x 128, k = 200: the tiles take as long as for the lists. Keys are written once and read
// four times in float32 (three digits and the last pass), 72 GB or 21 ms at 3.35 TB/s where the second-level cache
// keeps none of it; the shared-memory atomics of the first digit, where most rows fall into a few bins, come to as much
// again at one a cycle. Arithmetic and memory are of one size here, and do not overlap. Of 1,000,000 candidates 64 rows
// fit: a block a row leaves half of the multiprocessors idle, and a pass over a row's 4 MB by one takes 12 instructions
// a key and thread, 47,000 instructions a warp, eight warps on four schedulers: .055 ms, four passes .22 a strip; by
// five blocks a row .06, for write_costs' .93 (measured on an H200).
//
// What still comes here with tensor cores at hand: float64, more than 1024 neighbours, fewer than 16 dimensions, fewer
// than 4096 candidates (4 k x 8 for k > 128), and rows for which the filter had no room.
#pragma once

#include "knn_kernel.cuh"

namespace deepclust::cuda {

// Some row tiles of the search, and what is in memory of them.
template <typename T>
struct KnnStrip {
  using Key = key_t<T>;
  KnnInput<T> input;
  int64_t first_tile, tiles;        // of [batch, row_tiles]
  Key* keys;                        // [tiles * tile_rows, points]
  RankedList<Key> chosen, scratch;  // [tiles * tile_rows, k]
  RankedList<Key> partials;         // [tiles * tile_rows, parts, k], where there is more than one part
  Neighbours<T> out;

  // Where a row of the strip belongs among all [batch, queries], -1 if its tile is not full.
  DC_DEVICE int64_t list_of(int64_t local) const {
    const KnnPlan& plan = input.plan;
    const int64_t tile = first_tile + local / plan.tile_rows;
    const int64_t row = tile % plan.row_tiles * plan.tile_rows + local % plan.tile_rows;
    return row < plan.queries ? tile / plan.row_tiles * plan.queries + row : -1;
  }
};

// (row tile, tile of candidates) to a block, the row tile the fastest. A row's own key in a graph is none: it comes
// last, behind all that k may ask for.
template <typename T, RowValue kValue, int kVec>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads, sizeof(T) == sizeof(double) ? 1 : 2) write_costs(const KnnStrip<T> strip) {
  using Key = key_t<T>;
  DC_SHARED(T, row_slab, KnnTile::kRowMemory);
  DC_SHARED(T, col_slab, KnnTile::kColMemory);
  const KnnPlan& plan = strip.input.plan;
  const int64_t local_tile = blockIdx.x % strip.tiles, tile = strip.first_tile + local_tile;
  const int64_t item = tile / plan.row_tiles, row0 = tile % plan.row_tiles * plan.tile_rows;
  const int64_t col0 = blockIdx.x / strip.tiles * KnnTile::kCols;
  T value[4][4];
  row_tile<kValue, KnnTile, kVec>(strip.input.rows_of(item), row0, strip.input.candidates_of(item), col0, plan.depth,
                                  row_slab, col_slab, value);
  DC_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int64_t local = KnnTile::row() + i, row = row0 + local;
    Key* const to = strip.keys + (local_tile * plan.tile_rows + local) * plan.points;
    DC_UNROLL
    for (int j = 0; j < 4; ++j) {
      const int64_t col = col0 + KnnTile::col() + j;
      if (local < plan.tile_rows && row < plan.queries && col < plan.points)
        to[col] = plan.graph && col == row ? kNoKey<Key> : key_of_value<kValue>(value[i][j]);
    }
  }
}

inline constexpr int kDigitBits = 11, kBins = 1 << kDigitBits;

struct RadixMemory {
  unsigned* bins;       // [kBins]
  unsigned* warp_sums;  // [kWarps]
  unsigned* choice;     // [3]: the bin, which of its words is the wanted one, how many it has
};

// The wanted-th smallest (from 1) of the words that `visit` hands over, or a higher limit that no other word lies
// below: true then. Else `wanted` says which one among the words equal to the limit is meant.
template <typename Word, typename Visit>
DC_DEVICE bool select_word(const RadixMemory& memory, const Visit& visit, unsigned& wanted, Word& limit) {
  constexpr int kOwn = kBins / kThreads;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
  Word prefix = 0;  // the digits that are settled
  for (int top = kKeyBits<Word>; top > 0;) {
    const int width = top < kDigitBits ? top : kDigitBits, shift = top - width;
    for (int bin = thread; bin < kBins; bin += kThreads) memory.bins[bin] = 0;
    DC_SYNC();
    visit([&](Word word) {
      if (top == kKeyBits<Word> || word >> top == prefix)
        atomicAdd(memory.bins + (static_cast<unsigned>(word >> shift) & ((1u << width) - 1)), 1u);
    });
    DC_SYNC();
    unsigned own = 0;
    for (int bin = thread * kOwn; bin < (thread + 1) * kOwn; ++bin) own += memory.bins[bin];
    unsigned through = own;  // the words in this lane's bins and those of the lanes before
    DC_UNROLL
    for (int step = 1; step < kWarp; step *= 2) {
      const unsigned other = __shfl_up_sync(kFullMask, through, step);
      if (lane >= step) through += other;
    }
    if (lane == kWarp - 1) memory.warp_sums[warp] = through;
    DC_SYNC();
    for (int other = 0; other < warp; ++other) through += memory.warp_sums[other];
    if (through - own < wanted && wanted <= through) {
      unsigned before = through - own;
      int bin = thread * kOwn;
      for (; before + memory.bins[bin] < wanted; ++bin) before += memory.bins[bin];
      memory.choice[0] = static_cast<unsigned>(bin);
      memory.choice[1] = wanted - before;
      memory.choice[2] = memory.bins[bin];
    }
    DC_SYNC();
    prefix = static_cast<Word>(prefix << width | memory.choice[0]);
    wanted = memory.choice[1];
    top = shift;
    limit = static_cast<Word>(prefix << shift | ((Word(1) << shift) - 1));
    if (wanted == memory.choice[2]) return true;
  }
  return false;
}

// The `wanted` lowest of `count` candidates that at(e) gives, unsorted.
template <typename Key, typename At>
DC_DEVICE void select_ranked(const At& at, int64_t count, unsigned wanted, const RankedList<Key>& chosen) {
  DC_SHARED(unsigned, bins, kBins);
  DC_SHARED(unsigned, warp_sums, kWarps);
  DC_SHARED(unsigned, choice, 3);
  DC_SHARED(unsigned, taken, 1);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp;
  const RadixMemory memory{bins, warp_sums, choice};
  if (thread == 0) taken[0] = 0;

  Ranked<Key> last{0, kNoIndex};  // the one wanted last, or one behind it and before the next
  const auto all_keys = [&](const auto& take) {
    for (int64_t e = thread; e < count; e += kThreads) take(at(e).key);
  };
  if (!select_word<Key>(memory, all_keys, wanted, last.key)) {
    const auto copies = [&](const auto& take) {
      for (int64_t e = thread; e < count; e += kThreads)
        if (at(e).key == last.key) take(at(e).index);
    };
    select_word<uint32_t>(memory, copies, wanted, last.index);
  }

  for (int64_t first = 0; first < count; first += kThreads) {
    const int64_t e = first + thread;
    const Ranked<Key> item = e < count ? at(e) : Ranked<Key>::none();
    const bool mine = e < count && !last.before(item);
    const unsigned found = __ballot_sync(kFullMask, mine);
    if (found == 0) continue;
    unsigned place = 0;
    if (lane == 0) place = atomicAdd(taken, static_cast<unsigned>(__popc(found)));
    place = __shfl_sync(kFullMask, place, 0) + static_cast<unsigned>(__popc(found & ((1u << lane) - 1)));
    if (mine) chosen.set(place, item);
  }
}

// A row's k best, unsorted; of each of its parts, where there are several. (row, part) to a block.
template <typename T>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads, 4) select_neighbours(const KnnStrip<T> strip) {
  using Key = key_t<T>;
  const KnnPlan& plan = strip.input.plan;
  const int64_t local = blockIdx.x / plan.parts, begin = blockIdx.x % plan.parts * plan.part_size;
  if (strip.list_of(local) < 0) return;
  const int64_t left = plan.points - begin, count = left < plan.part_size ? left : plan.part_size;
  const Key* const keys = strip.keys + local * plan.points + begin;
  const auto at = [&](int64_t e) { return Ranked<Key>{keys[e], static_cast<uint32_t>(begin + e)}; };
  const RankedList<Key> chosen =
      plan.parts > 1 ? strip.partials.from(blockIdx.x * plan.k) : strip.chosen.from(local * plan.k);
  select_ranked<Key>(at, count, static_cast<unsigned>(plan.k), chosen);
}

// The k best of what the parts have chosen, a row to a block.
template <typename T>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads, 4) select_of_parts(const KnnStrip<T> strip) {
  using Key = key_t<T>;
  const KnnPlan& plan = strip.input.plan;
  const int64_t local = blockIdx.x, count = plan.parts * plan.k;
  if (strip.list_of(local) < 0) return;
  const RankedList<Key> from = strip.partials.from(local * count);
  const auto at = [&](int64_t e) { return from.at(e); };
  select_ranked<Key>(at, count, static_cast<unsigned>(plan.k), strip.chosen.from(local * plan.k));
}

// Sorts a run of `size` in shared memory, a power of two, by a bitonic network. The block writes it before, and may
// read it after.
template <typename Key>
DC_DEVICE void sort_run(const RankedList<Key>& run, int size) {
  // Spans of 2, 4, 8, ... are sorted, every other one downwards, so that two together rise and fall.
  for (int span = 2; span <= size; span *= 2) {
    for (int step = span / 2; step > 0; step /= 2) {
      DC_SYNC();
      for (int pair = static_cast<int>(threadIdx.x); pair < size / 2; pair += kThreads) {
        const int low = pair / step * 2 * step + pair % step, high = low + step;
        const Ranked<Key> a = run.at(low), b = run.at(high);
        if (b.before(a) == ((low & span) == 0)) {
          run.set(low, b);
          run.set(high, a);
        }
      }
    }
  }
  DC_SYNC();
}

// A run of a row's chosen, sorted; where there is one run it is the result.
template <typename T>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads) sort_runs(const KnnStrip<T> strip, int64_t runs) {
  using Key = key_t<T>;
  DC_SHARED(Key, keys, KnnPlan::kRun);
  DC_SHARED(uint32_t, indices, KnnPlan::kRun);
  const int64_t local = blockIdx.x / runs, first = blockIdx.x % runs * KnnPlan::kRun, k = strip.input.plan.k;
  const int64_t list = strip.list_of(local);
  if (list < 0) return;
  const int count = static_cast<int>(k - first < KnnPlan::kRun ? k - first : KnnPlan::kRun);
  int size = 1;
  while (size < count) size *= 2;
  const RankedList<Key> run{keys, indices}, chosen = strip.chosen.from(local * k + first);
  for (int e = static_cast<int>(threadIdx.x); e < size; e += kThreads)
    run.set(e, e < count ? chosen.at(e) : Ranked<Key>::none());
  sort_run(run, size);
  for (int e = static_cast<int>(threadIdx.x); e < count; e += kThreads) {
    if (runs == 1)
      strip.out.set(list * k + e, run.at(e));
    else
      chosen.set(e, run.at(e));
  }
}

// Pairs of sorted runs of `length` become one: an entry to a thread, from `chosen` to `scratch` or the result.
template <typename T>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads) merge_runs(const KnnStrip<T> strip, int64_t length, bool last) {
  const int64_t k = strip.input.plan.k, at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t local = at / k, e = at % k;
  if (local >= strip.tiles * strip.input.plan.tile_rows) return;
  const int64_t list = strip.list_of(local);
  if (list < 0) return;
  const RankedList<key_t<T>> from = strip.chosen.from(local * k);
  const Ranked<key_t<T>> item = from.at(e);
  const int64_t own = e / length * length, begin = e / (2 * length) * 2 * length;
  const int64_t other = own == begin ? begin + length : begin;
  const int64_t left = k - other < 0 ? 0 : k - other;
  const int64_t rank = begin + (e - own) + from.from(other).count_before(left < length ? left : length, item);
  if (last)
    strip.out.set(list * k + rank, item);
  else
    strip.scratch.set(local * k + rank, item);
}

}  // namespace deepclust::cuda
