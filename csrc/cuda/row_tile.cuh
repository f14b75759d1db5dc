// A block's tile of squared distances or inner products between rows of two matrices, in registers:
//
//   value(m, n) = sum_d (a_md - b_nd)^2   or   sum_d a_md b_nd.
//
// Squared distances are summed as differences, never as |a|^2 - 2 a b + |b|^2: two instructions a dimension and not
// one, but equal rows are at exactly 0 and points far from the origin lose nothing.
//
// 256 threads, 4 x 4 pairs each: 64 x 64 pairs a block, 128 x 32 or 256 x 16 where the second matrix has few rows. The
// depth passes through shared memory in slabs of 16, [depth][row], and the next slab is fetched into registers while
// the present one is worked on. Every pair is summed by one chain over d within a slab, and by one over the slabs,
// with the fused multiply-add spelled out: its bits depend on the two rows alone, not on the tile nor on the place in
// it, and the rounding error grows with 16 + depth / 16 instead of depth.
//
// Estimate for an H100: a step over one d reads 32 bytes of shared memory for 16 pairs of a thread, 16 or 32
// instructions. Arithmetic bounds it at about half of the peak: 128 lanes and a multiply-add a cycle for products, half
// as many dimensions a second for distances. Global memory: every row of a once for each tile of b's rows, and
// the other way round. Where rows start on vectors, two lanes read a 32-byte sector of float32 and a warp's writes to
// shared memory, four elements of padding a row, fall on 32 different banks (tiles of 64); elsewhere up to eight lanes
// read single elements of a row.
#pragma once

#include <cmath>

#include "product_kernel.cuh"

namespace deepclust::cuda {

enum class RowValue { kSquaredDistance, kProduct };

// Rows of a dense matrix [rows, depth]: RowsOf<E>{data, depth, rows}.
template <typename E>
using RowsOf = Operand<E, Fastest::kK>;

// The tile and what it takes of shared memory, in elements.
template <int kRowCount, int kColCount>
struct RowTile {
  static constexpr int kRows = kRowCount, kCols = kColCount, kDepth = 16;
  static constexpr int kRowPitch = kRows + 4, kColPitch = kCols + 4;
  static constexpr int kRowMemory = kDepth * kRowPitch, kColMemory = kDepth * kColPitch;
  static constexpr int kAcross = kCols / 4;           // threads along a row of the tile: neighbours in a warp
  static constexpr int kUnroll = kRows > 64 ? 2 : 4;  // a long side's fetches leave no registers for more
  static_assert(kRows * kCols == 16 * kThreads, "a thread has 4 x 4 pairs");

  // The first of this thread's four rows and of its four columns.
  DC_DEVICE static int row() { return static_cast<int>(threadIdx.x) / kAcross * 4; }
  DC_DEVICE static int col() { return static_cast<int>(threadIdx.x) % kAcross * 4; }
};

// A thread's share of a slab of `kSide` rows: kVec neighbouring elements of d at a step, all of one row, so that one
// address serves them.
template <int kSide, int kVec>
struct SlabShare {
  static constexpr int kDepth = 16, kSector = 8 / kVec;
  static constexpr int kLanes = kThreads / kSide < kSector ? kThreads / kSide : kSector;  // side by side along d
  static constexpr int kStride = kVec * kThreads / kSide;                                 // of d, from step to step
  static constexpr int kSteps = kStride < kDepth ? kDepth / kStride : 1;

  int row, k;
  DC_DEVICE SlabShare() {
    const int thread = static_cast<int>(threadIdx.x);
    row = thread / kLanes % kSide;
    k = (thread / (kLanes * kSide) * kLanes + thread % kLanes) * kVec;
  }
  DC_DEVICE bool mine() const { return kStride <= kDepth || k < kDepth; }
};

// Rows and depth beyond the end are 0.
template <int kSide, int kVec, typename E, typename T, int kSteps>
DC_DEVICE void fetch_slab(const RowsOf<E>& rows, int64_t row0, int64_t k0, int64_t depth, T (&next)[kSteps][kVec]) {
  const SlabShare<kSide, kVec> share;
  const E* const from = rows.at(k0 + share.k, row0 + share.row);
  const bool inside = share.mine() && row0 + share.row < rows.size_m;
  const int left = !inside ? 0 : (depth - k0 < share.kDepth ? static_cast<int>(depth - k0) : share.kDepth) - share.k;
  DC_UNROLL
  for (int step = 0; step < kSteps; ++step) {
    constexpr int kStride = SlabShare<kSide, kVec>::kStride;
    if constexpr (kVec > 1) {
      if (step * kStride < left) {
        rows.values(from + step * kStride, next[step]);
      } else {
        DC_UNROLL
        for (int i = 0; i < kVec; ++i) next[step][i] = T(0);
      }
    } else {
      next[step][0] = step * kStride < left ? static_cast<T>(rows.value(from + step * kStride)) : T(0);
    }
  }
}

template <int kSide, int kVec, typename T, int kSteps>
DC_DEVICE void place_slab(const T (&next)[kSteps][kVec], T* slab) {
  const SlabShare<kSide, kVec> share;
  if (!share.mine()) return;
  DC_UNROLL
  for (int step = 0; step < kSteps; ++step) {
    DC_UNROLL
    for (int i = 0; i < kVec; ++i) slab[(share.k + step * share.kStride + i) * (kSide + 4) + share.row] = next[step][i];
  }
}

DC_DEVICE float multiply_add(float a, float b, float sum) {
  return fmaf(a, b, sum);
}
DC_DEVICE double multiply_add(double a, double b, double sum) {
  return fma(a, b, sum);
}

// value[i][j] of row m0 + Tile::row() + i of a and row n0 + Tile::col() + j of b; what lies beyond either end is left
// to the caller to ignore. `a_slab` and `b_slab` are shared memory of Tile::kRowMemory and kColMemory elements, free
// again on return. kVec is 4 where rows_start_on_vectors() of both and 1 elsewhere (always for double, whose four are
// more than a GPU moves at once). Every thread of the block must call it.
template <RowValue kValue, typename Tile, int kVec, typename T, typename A, typename B>
DC_DEVICE void row_tile(const RowsOf<A>& a, int64_t m0, const RowsOf<B>& b, int64_t n0, int64_t depth, T* a_slab,
                        T* b_slab, T (&value)[4][4]) {
  T a_next[SlabShare<Tile::kRows, kVec>::kSteps][kVec], b_next[SlabShare<Tile::kCols, kVec>::kSteps][kVec];
  DC_UNROLL
  for (int e = 0; e < 16; ++e) value[e / 4][e % 4] = T(0);
  fetch_slab<Tile::kRows>(a, m0, 0, depth, a_next);
  fetch_slab<Tile::kCols>(b, n0, 0, depth, b_next);
  for (int64_t k = 0; k < depth; k += Tile::kDepth) {
    place_slab<Tile::kRows>(a_next, a_slab);
    place_slab<Tile::kCols>(b_next, b_slab);
    DC_SYNC();
    if (k + Tile::kDepth < depth) {
      fetch_slab<Tile::kRows>(a, m0, k + Tile::kDepth, depth, a_next);
      fetch_slab<Tile::kCols>(b, n0, k + Tile::kDepth, depth, b_next);
    }
    T sum[4][4] = {};
    const int steps = depth - k < Tile::kDepth ? static_cast<int>(depth - k) : Tile::kDepth;
    DC_UNROLL_BY(Tile::kUnroll)
    for (int d = 0; d < steps; ++d) {
      T left[4], right[4];
      read_four(a_slab + d * Tile::kRowPitch + Tile::row(), left);
      read_four(b_slab + d * Tile::kColPitch + Tile::col(), right);
      DC_UNROLL
      for (int i = 0; i < 4; ++i) {
        DC_UNROLL
        for (int j = 0; j < 4; ++j) {
          if constexpr (kValue == RowValue::kSquaredDistance) {
            const T difference = left[i] - right[j];
            sum[i][j] = multiply_add(difference, difference, sum[i][j]);
          } else {
            sum[i][j] = multiply_add(left[i], right[j], sum[i][j]);
          }
        }
      }
    }
    DC_UNROLL
    for (int e = 0; e < 16; ++e) value[e / 4][e % 4] += sum[e / 4][e % 4];
    DC_SYNC();  // the slabs are free again
  }
}

}  // namespace deepclust::cuda
