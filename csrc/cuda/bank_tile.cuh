// The pieces of a block's walk over a memory bank (bank_nll_entropy_kernel.cuh): which pairs of a tile count, where
// their weights lie in shared memory, and the sums of the bank's rows by these weights.
#pragma once

#include "bank_parts.cuh"
#include "row_tile.cuh"

namespace deepclust::cuda {

// The tile of logits. Beside one sum of weighted rows, with two blocks a multiprocessor, registers are short.
template <int kWeighted>
struct LogitTile : RowTile<64, 64> {
  static constexpr int kUnroll = kWeighted == 1 ? 2 : 4;
};

template <typename T>
struct BankShape {
  using Tile = RowTile<64, 64>;
  static constexpr int kPanel = sizeof(T) == sizeof(double) ? 64 : 128;
  static constexpr int kGroups = kPanel / 64;                          // of four neighbouring columns a thread
  static constexpr int kPart = sizeof(T) == sizeof(double) ? 16 : 64;  // rows whose weights lie in shared memory
  static constexpr int kSlab = 16;                                     // rows that do
  static constexpr int kLoads = kSlab * kPanel / kThreads;
  static constexpr int kSlabMemory = Tile::kRowMemory + Tile::kColMemory;  // of row_tile; then of the rows
  static_assert(kSlab * kPanel <= kSlabMemory, "the rows lie where the slabs of row_tile were");
};

// Which of a thread's 4 x 4 pairs count: bit 4 i + j for query `query` + i and the row n0 + col + j, which must be one
// of the first `rows` from n0 on and outside of the query's set. Every lane of the warp must call it.
DC_DEVICE unsigned find_counting(const BankSets& sets, int64_t queries, int64_t query, int64_t n0, int rows, int col) {
  unsigned counting = 0;
  DC_UNROLL
  for (int j = 0; j < 4; ++j) counting |= col + j < rows ? 0x1111u << j : 0u;
  DC_UNROLL
  for (int i = 0; i < 4; ++i) {
    unsigned long long members = 0;  // of the set, among 64 rows; each of the query's 16 lanes looks at some entries
    if (query + i < queries) {
      for (int64_t entry = threadIdx.x % 16; entry <= sets.count; entry += 16) {
        const int64_t place = sets.row(query + i, entry) - n0;
        if (place >= 0 && place < 64) members |= 1ull << place;
      }
    }
    if (!__any_sync(kFullMask, members != 0)) continue;
    DC_UNROLL
    for (int step = 8; step > 0; step /= 2) members |= __shfl_xor_sync(kFullMask, members, step);
    counting &= ~(static_cast<unsigned>(members >> col & 0xf) << 4 * i);
  }
  return counting;
}

template <typename T>
DC_DEVICE void write_four(const T (&from)[4], T* to) {
  constexpr int kWidth = 16 / sizeof(T);
  DC_UNROLL
  for (int i = 0; i < 4; i += kWidth) {
    Vector<T, kWidth> part;
    DC_UNROLL
    for (int j = 0; j < kWidth; ++j) part.value[j] = from[i + j];
    store_vec<kWidth>(to + i, part);
  }
}

// Where the weights of row n (of the tile) and of four queries from 4 * four on lie, in shared memory of `kPart` rows.
template <int kPart>
DC_DEVICE int weight_place(int n, int four) {
  return n % kPart * 64 + (four ^ (n / 4)) * 4;
}

template <typename E, typename T>
DC_DEVICE void fetch_rows(const RowsOf<E>& bank, int n0, int64_t d0, int64_t depth, T (&next)[BankShape<T>::kLoads]) {
  constexpr int kPanel = BankShape<T>::kPanel, kStep = kThreads / kPanel;
  const int64_t d = d0 + threadIdx.x % kPanel;
  const int n = n0 + static_cast<int>(threadIdx.x) / kPanel;
  const int left = d < depth ? static_cast<int>(bank.size_m) - n : 0;
  const E* from = bank.at(d, n);
  DC_UNROLL
  for (int i = 0; i < BankShape<T>::kLoads; ++i, from += kStep * depth)
    next[i] = i * kStep < left ? bank.value(from) : T(0);
}

// sums[w][g][i][j] += sum over kPart rows from n0 + first on of the w-th weight of query 4 * four + i, times column
// d0 + 64 g + Tile::col() + j of the row. Begins by showing all threads the weights, and ends with all memory free.
template <int kWeighted, typename E, typename T>
DC_DEVICE void add_rows(const RowsOf<E>& bank, int n0, int first, int64_t d0, int64_t depth, const T* weights, T* slab,
                        T (&sums)[kWeighted][BankShape<T>::kGroups][4][4]) {
  using Shape = BankShape<T>;
  constexpr int kPanel = Shape::kPanel;
  const int four = static_cast<int>(threadIdx.x) / 16, col = Shape::Tile::col();
  T next[Shape::kLoads];
  fetch_rows<E, T>(bank, n0 + first, d0, depth, next);
  DC_UNROLL_BY(1)
  for (int done = 0; done < Shape::kPart; done += Shape::kSlab) {
    DC_UNROLL
    for (int i = 0; i < Shape::kLoads; ++i) slab[threadIdx.x + i * kThreads] = next[i];
    DC_SYNC();
    if (done + Shape::kSlab < Shape::kPart) fetch_rows<E, T>(bank, n0 + first + done + Shape::kSlab, d0, depth, next);
    DC_UNROLL_BY(2)
    for (int n = 0; n < Shape::kSlab; ++n) {
      T weight[kWeighted][4];
      DC_UNROLL
      for (int w = 0; w < kWeighted; ++w)
        read_four(weights + w * Shape::kPart * 64 + weight_place<Shape::kPart>(first + done + n, four), weight[w]);
      DC_UNROLL
      for (int g = 0; g < Shape::kGroups; ++g) {
        T row[4];
        read_four(slab + n * kPanel + g * 64 + col, row);
        DC_UNROLL
        for (int w = 0; w < kWeighted; ++w) {
          DC_UNROLL
          for (int i = 0; i < 4; ++i) {
            DC_UNROLL
            for (int j = 0; j < 4; ++j) sums[w][g][i][j] = multiply_add(weight[w][i], row[j], sums[w][g][i][j]);
          }
        }
      }
    }
    DC_SYNC();  // the slab is free again, and after the last one the weights
  }
}

}  // namespace deepclust::cuda
