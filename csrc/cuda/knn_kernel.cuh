// knn on the GPU for few neighbours: the k best of n candidates for every row, kept in lists while tiles go by.
//
// v(i, j) = sum_d (q_id - x_jd)^2, or q_i x_j with rows of length 1 for the cosine, by row_tile.cuh: the bits of a
// value depend on its two rows alone, so cutting the work otherwise gives the same result. Neighbours are in the total
// order (value, index) of ranked.cuh, so the order in which candidates come does not matter either.
//
// Launches: one pass that looks for NaN and infinity, and where needed writes rows as float32 and of length 1; one
// search; one merge where the candidates are in chunks. Nothing of size q x n exists.
//
// Search: a block owns 64 rows and one chunk of the candidates, and walks through it in tiles of 64 x 64. A warp holds
// eight whole rows of a tile in registers (16 lanes of 4 columns a row, four rows above one another), so it alone keeps
// their lists, sorted, in shared memory: 64 k entries of 8 bytes (12 for double), which with 9 KB of slabs (17)
// fits k = 64 (32). A value below its row's k-th best of the tiles before is looked at again, by all lanes at a
// time, and what still enters is inserted by all lanes together. Few rows: the candidates are cut into chunks, as many
// as make 528 blocks, each with lists of its own, which merge_chunks_kernel.cuh merges.
//
// Estimate for an H100, graph of 60,000 x 128, k = 20: 4.6e11 differences and as many multiply-adds take 28 ms at the
// peak rate of instructions, a product for cosine or inner 14 ms; row_tile.cuh is expected to reach about half of it.
// Measured on an H200: 58.6 ms, .79 instructions a scheduler and cycle; 1,000,000 x 128 in 13.3 s. Where there are
// tensor cores and enough candidates, knn_filter_kernel.cuh takes its place. Looking at a tile costs a thread about a
// hundred instructions, 2 % of them at d = 128 but a quarter at d = 8. The insertions, k (1 + ln(n / k)) or 180 a row
// in all, come to about a millisecond. Rows of x come from the second-level cache: 64 rows of 512 bytes serve 4096
// pairs. Arithmetic bounds it. v(i, j) = v(j, i) is not used: half the pairs, but every list would need a lock or a
// merge.
#pragma once

#include <cmath>
#include <limits>
#include <type_traits>

#include "knn.h"
#include "ranked.cuh"
#include "row_tile.cuh"

namespace deepclust::cuda {

using KnnTile = RowTile<64, 64>;
inline constexpr int kWarpRows = 8;
static_assert(KnnTile::kRows == KnnPlan::kTile && 4 * kWarp / KnnTile::kAcross == kWarpRows,
              "a warp holds eight whole rows");

// What a search reads: queries and candidates of every batch item.
template <typename T>
struct KnnInput {
  KnnPlan plan;
  const T* rows;        // [batch, queries, depth]
  const T* candidates;  // [batch, points, depth]

  DC_DEVICE RowsOf<T> rows_of(int64_t item) const {
    return {rows + item * plan.queries * plan.depth, plan.depth, plan.queries};
  }
  DC_DEVICE RowsOf<T> candidates_of(int64_t item) const {
    return {candidates + item * plan.points * plan.depth, plan.depth, plan.points};
  }
};

template <RowValue kValue, typename T>
DC_DEVICE key_t<T> key_of_value(T value) {
  return key_of(kValue == RowValue::kSquaredDistance ? value : -value);
}

DC_DEVICE double warp_largest(double value) {
  DC_UNROLL
  for (int step = kWarp / 2; step > 0; step /= 2) {
    const double other = __shfl_xor_sync(kFullMask, value, step);
    value = other > value ? other : value;
  }
  return value;
}

// One argument's rows, [batch, count, depth], a warp each.
template <typename E>
struct KnnRows {
  const E* rows;
  accumulator_t<E>* out;  // null where the search reads the rows themselves
  int64_t total, count, depth;
  bool unit;                      // rows of length 1; a zero row stays as it is
  uint64_t arg;                   // 0 query, 1 x
  unsigned long long* first_bad;  // item, arg and row as one number, the smallest found
};

DC_GLOBAL void clear_first_bad(unsigned long long* first_bad) {
  if (threadIdx.x == 0) *first_bad = ~0ull;
}

template <typename E>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads) prepare_knn_rows(const KnnRows<E> task) {
  using T = accumulator_t<E>;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (row >= task.total) return;
  const E* const from = task.rows + row * task.depth;
  bool finite = true;
  double largest = 0;
  for (int64_t d = lane; d < task.depth; d += kWarp) {
    const T value = read(from[d]);
    finite = finite && value - value == T(0);
    const double size = value < 0 ? -value : value;
    largest = size > largest ? size : largest;
  }
  if (!__all_sync(kFullMask, finite)) {
    const int64_t item = row / task.count;
    const uint64_t code = (static_cast<uint64_t>(item) * 2 + task.arg) << 32 | static_cast<uint64_t>(row % task.count);
    if (lane == 0) atomicMin(task.first_bad, static_cast<unsigned long long>(code));
    return;
  }
  if (task.out == nullptr) return;
  T* const out = task.out + row * task.depth;
  if (!task.unit) {
    for (int64_t d = lane; d < task.depth; d += kWarp) out[d] = read(from[d]);
    return;
  }
  largest = warp_largest(largest);
  // Squares of float32 fit a double as they are; those of float64 over- or underflow unless scaled first.
  const double scale = std::is_same_v<T, double> && largest > 0 ? largest : 1.0;
  double sum = 0;
  for (int64_t d = lane; d < task.depth; d += kWarp) {
    const double value = read(from[d]) / scale;
    sum += value * value;
  }
  sum = warp_sum(sum);
  const double length = sum > 0 ? sqrt(sum) : 1.0;
  for (int64_t d = lane; d < task.depth; d += kWarp) out[d] = static_cast<T>(read(from[d]) / scale / length);
}

// A warp's insertion into one of its lists of k <= 64: what comes after `next` moves one place on, the last falls out.
template <typename Key>
DC_DEVICE void insert_neighbour(const RankedList<Key>& list, int k, const Ranked<Key>& next) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  Ranked<Key> own[2], ahead[2];
  DC_UNROLL
  for (int slot = 0; slot < 2; ++slot) {
    const int e = slot * kWarp + lane;
    own[slot] = e < k ? list.at(e) : next;
    ahead[slot] = e > 0 && e < k ? list.at(e - 1) : next;
  }
  DC_SYNCWARP(kFullMask);
  DC_UNROLL
  for (int slot = 0; slot < 2; ++slot) {
    // The place ahead keeps its own item, or takes `next`; or it moves too, and its item comes here.
    if (next.before(own[slot])) list.set(slot * kWarp + lane, next.before(ahead[slot]) ? ahead[slot] : next);
  }
  DC_SYNCWARP(kFullMask);
}

// Which of a thread's sixteen values may enter their rows' lists, as bits. Candidates come in the order of their index,
// so one that only equals the k-th best of the tiles before is behind it. A list that is not full has no k-th best: its
// limit reads as NaN, and lets everything in; so does a cost of NaN. A closer look follows before anything is inserted.
template <RowValue kValue, typename T>
DC_DEVICE unsigned entering_lists(const T (&value)[4][4], const RankedList<key_t<T>>& lists, int first_row, int k,
                                  int64_t rows, int64_t cols, bool diagonal) {
  unsigned entering = 0;
  DC_UNROLL
  for (int i = 0; i < 4; ++i) {
    const int row = KnnTile::row() + i;
    const T limit =
        row < rows ? cost_of<T>(lists.keys[(row - first_row) * k + k - 1]) : -std::numeric_limits<T>::infinity();
    DC_UNROLL
    for (int j = 0; j < 4; ++j) {
      const T cost = kValue == RowValue::kSquaredDistance ? value[i][j] : -value[i][j];
      const bool allowed = KnnTile::col() + j < cols && !(diagonal && KnnTile::col() + j == row);
      if (allowed && !(cost >= limit)) entering |= 1u << (i * 4 + j);
    }
  }
  return entering;
}

// The k best of each chunk: [batch, queries, chunks, k], or the results themselves where there is one.
template <typename T>
struct KnnLists {
  KnnInput<T> input;
  RankedList<key_t<T>> partials;
  Neighbours<T> out;
};

// (row tile, item, chunk) to a block, the row tile the fastest: neighbours read the same candidates.
template <typename T, RowValue kValue, int kVec>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads, sizeof(T) == sizeof(double) ? 1 : 2)
    nearest_in_chunks(const KnnLists<T> task) {
  using Key = key_t<T>;
  DC_SHARED(T, row_slab, KnnTile::kRowMemory);
  DC_SHARED(T, col_slab, KnnTile::kColMemory);
  DC_DYNAMIC_SHARED(Key, keys);  // [64, k], and as many indices
  const KnnPlan& plan = task.input.plan;
  const int k = static_cast<int>(plan.k), lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t tiles = plan.batch * plan.row_tiles, tile = blockIdx.x % tiles, chunk = blockIdx.x / tiles;
  const int64_t item = tile / plan.row_tiles, row0 = tile % plan.row_tiles * KnnTile::kRows;
  const int64_t begin = chunk * plan.chunk_size, ahead = begin + plan.chunk_size;
  const int64_t end = ahead < plan.points ? ahead : plan.points;
  const RowsOf<T> rows = task.input.rows_of(item), candidates = task.input.candidates_of(item);

  const int first_row = static_cast<int>(threadIdx.x) / kWarp * kWarpRows;
  const RankedList<Key> lists =
      RankedList<Key>{keys, reinterpret_cast<uint32_t*>(keys + KnnTile::kRows * k)}.from(first_row * k);
  for (int e = lane; e < kWarpRows * k; e += kWarp) lists.set(e, Ranked<Key>::none());
  DC_SYNCWARP(kFullMask);

  T value[4][4];
  for (int64_t col0 = begin; col0 < end; col0 += KnnTile::kCols) {
    row_tile<kValue, KnnTile, kVec>(rows, row0, candidates, col0, plan.depth, row_slab, col_slab, value);
    unsigned entering =
        entering_lists<kValue>(value, lists, first_row, k, plan.queries - row0, end - col0, plan.graph && col0 == row0);
    for (;;) {
      // Each lane looks at the first value it has left, by the lists as they are now.
      const int e = __ffs(static_cast<int>(entering)) - 1;
      T first = value[0][0];
      DC_UNROLL
      for (int other = 1; other < 16; ++other) first = other == e ? value[other / 4][other % 4] : first;
      const Ranked<Key> mine{key_of_value<kValue>(first), static_cast<uint32_t>(col0) + KnnTile::col() + e % 4};
      const bool enters = entering != 0 && mine.before(lists.at((KnnTile::row() - first_row + e / 4) * k + k - 1));
      if (entering != 0 && !enters) entering &= entering - 1;
      const unsigned found = __ballot_sync(kFullMask, enters);
      if (found == 0) {
        if (__any_sync(kFullMask, entering != 0)) continue;
        break;
      }
      const int source = __ffs(static_cast<int>(found)) - 1, place = __shfl_sync(kFullMask, e, source);
      const Ranked<Key> next{__shfl_sync(kFullMask, mine.key, source),
                             static_cast<uint32_t>(col0) + source % KnnTile::kAcross * 4 + place % 4};
      insert_neighbour(lists.from((source / KnnTile::kAcross * 4 + place / 4) * k), k, next);
      if (lane == source) entering &= entering - 1;
    }
  }

  for (int e = lane; e < kWarpRows * k; e += kWarp) {
    const int64_t row = row0 + first_row + e / k;
    if (row >= plan.queries) break;
    const int64_t list = item * plan.queries + row;
    if (plan.chunks == 1)
      task.out.set(list * k + e % k, lists.at(e));
    else
      task.partials.set((list * plan.chunks + chunk) * k + e % k, lists.at(e));
  }
}

}  // namespace deepclust::cuda
