// knn on the CPU: the k nearest of n points to each of them, or to each of q queries. Exact, in two steps.
//
// What is promised is the order of v(i, j) = sum_k (x_ik - x_jk)^2, the differences squared as they stand: no digits
// cancel, equal points are at distance 0, and (i, j) and (j, i) have the same bits. That costs a pass over both rows,
// so it is done only for those who may win. The filter before it is one matrix product: with c = x - mean,
// -v/2 = c_i c_j - |c_i|^2 / 2 - |c_j|^2 / 2, up to E = eps (|c_i|^2 + |c_j|^2). Cosine and inner product: v = c_i c_j
// with c the rows (L2-normalised for cosine), up to the same E.
//
// eps: with u the unit roundoff, centring errs by (2u + u^2) p^2 in the squared distance, p = |c_i| + |c_j|; the dot
// product by gamma_2d |c_i| |c_j| <= gamma_2d p^2 / 4; the norms (double for float, else gamma_d) and the comparison's
// own additions by less than gamma_d p^2 / 4 + 10 u p^2; v itself by gamma_(d+2) p^2 / 2 in the similarity. With
// p^2 <= 2 (|c_i|^2 + |c_j|^2), eps = (2.5 d + 64) u holds all of it (float has exact norms and double a chain of fused
// steps, gamma_d, so that terms of second order fit too), and an absolute term what underflows. Points so large, or so
// many dimensions, that this is void are compared without a filter.
//
// Where the processor multiplies bfloat16 faster, the filter does: rows rounded to c + e err by |e_i| |c_j| + |c_i|
// |e_j| + |e_i| |e_j| more, and |e_i| |c_j| <= (|e_i|^2 / r + r |c_j|^2) / 2 for any r > 0 parts that into a term of i
// and one of j. r is a rounded row's usual |e| / |c|. The filter lets through half as many again at k = 20, a quarter
// at k = 200, and costs half, by tiles a sixth; the result is the same, bit for bit. Intel's registers take longer than
// for float (gemm/gemm_tile_bf16.h).
//
// Codes of 8 bits (VNNI) cost a quarter; other processors take 16 bits. Cosine and inner product use them as distances
// too, through the norms. Dot products of codes alone would let through eighteen times k on real features (four
// times once turned), but as distances they tell near points apart: 36 candidates of 60,000 at k = 20 where bfloat16
// leaves 28 (knn/bounds.h). A graph of 60,000 x 128 real features takes 37 % less time at k = 1 and 26 % less at k =
// 20, and none less at k = 200, where the lists take the time (by tiles 3.6 s become 2.1 there, 20,000 x 784); points
// in no structure, all about equally far, take up to 2.4 times as long. So a few rows are asked first (codes_pay).
//
// Of many dimensions a few may tell most pairs apart: coordinates along the leading directions, and the length of what
// is outside of them (knn/projection.h, codes/subspace.h). Then the filter multiplies those alone, in 16 bits. They
// bound a distance from below and not from above, so a candidate is kept with its exact cost, and there must be limits
// to begin with: half of the pairs are looked at by coordinates alone, and what is nearest by these is weighed.
//
// Work: n^2 d / 2 multiply-adds for a graph, q n d for queries. Of a graph of 30,000 x 128 in bfloat16 the product
// takes 60 % of the time at k = 20 and a quarter at k = 200, where the lists (40 %) and the exact costs (25 %) bound
// it. The filter reads a tile's dot products once from the second-level cache and looks at both limits, the row's and
// the column's, in one pass. Tiling: a graph needs the pairs of its T tiles only once, (i, j) feeding both lists; a
// round-robin tournament gives T - 1 rounds of pairs that share no tile, so no list has two writers. Memory: a packed
// copy of the points and the lists.
#pragma once

#include <algorithm>
#include <utility>

#include "lists.h"
#include "packing.h"

namespace deepclust::cpu {

inline constexpr int64_t kFilterRows = 192;  // of A in a tile of dot products
inline constexpr int64_t kFilterCols = 480;  // of B: whole panels of float and of double
inline constexpr int64_t kMatchRows = 960;   // most rows of a tournament's tile
inline constexpr int64_t kTilesWanted = 64;  // fewer tiles than this and they are made smaller
inline constexpr int64_t kQueryRows = 192;   // queries of a task
inline constexpr int64_t kTasksWanted = 16;  // few queries: their candidates are cut as well

// The tournament of `tiles` players (an even number; a last one beyond the real tiles sits out): pair `task` of
// `round`.
inline std::pair<int64_t, int64_t> tournament_pair(int64_t players, int64_t round, int64_t task) {
  const int64_t ring = players - 1;
  if (task == 0) return {round, ring};
  return {(round + task) % ring, (round + ring - task) % ring};
}

struct TilePlan {
  int64_t points, tile_rows, tiles, players;

  explicit TilePlan(int64_t points) : points(points) {
    constexpr int64_t kStep = 96;  // whole panels
    tile_rows = std::clamp(round_up(ceil_div(points, kTilesWanted), kStep), kStep, kMatchRows);
    tiles = ceil_div(points, tile_rows);
    players = round_up(tiles, 2);
  }
  int64_t begin(int64_t tile) const { return tile * tile_rows; }
  int64_t size(int64_t tile) const { return std::min(tile_rows, points - begin(tile)); }
};

// Point i of projected rows and the columns that its own limit or theirs let through: what a pair costs goes to both.
template <typename T>
void weigh_pairs(const Lists<T>& lists, const PackedPoints<T>& points, int64_t i, int64_t list,
                 const PackedPoints<T>& others, int64_t col, const Filtered& hits, const int32_t* row_found,
                 const int32_t* col_found, bool both, bool skip_self) {
  int32_t index[2 * kFilterCols];
  T costs[2 * kFilterCols];
  const int32_t* const end =
      std::set_union(row_found, row_found + hits.for_row, col_found, col_found + hits.for_cols, index);
  int64_t count = 0;
  for (const int32_t* c = index; c < end; ++c)
    if (!skip_self || col + *c != i) index[count++] = static_cast<int32_t>(col + *c);
  costs_of(lists.squared, points.row(i), others.rows, others.row_stride, points.depth, index, count, costs);
  for (int64_t c = 0; c < count; ++c) {
    lists.keep(list, points, i, index[c], -costs[c]);
    if (both) lists.keep(index[c], others, index[c], static_cast<int32_t>(i), -costs[c]);
  }
}

// Rows [a_first, a_first + m) of `points` against [b_first, b_first + n) of `others`: every dot product that reaches a
// limit goes into the list of its row (list0 + row within A) and, with `both`, of its column. skip_self leaves out
// pairs of one index. a_first and b_first are whole panels.
template <typename T>
void visit_tile(const Lists<T>& lists, const PackedPoints<T>& points, int64_t a_first, int64_t m, int64_t list0,
                const PackedPoints<T>& others, int64_t b_first, int64_t n, bool both, bool skip_self) {
  const Buffer<T> dots(std::min(kFilterRows, round_up(m, kStripRows)) * kFilterCols);
  const Buffer<int32_t> row_found(kFilterCols + kLanes<T>), col_found(kFilterCols + kLanes<T>);
  for (int64_t col = b_first; col < b_first + n; col += kFilterCols) {
    const int64_t cols = std::min(kFilterCols, b_first + n - col);
    const int64_t ld = round_up(cols, kLanes<T>);
    for (int64_t row = 0; row < m; row += kFilterRows) {
      const int64_t rows = std::min(kFilterRows, m - row);
      product_tile(points, a_first + row, rows, others, col, cols, dots.get(), ld);
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t i = a_first + row + r, list = list0 + row + r;
        const T* line = dots.get() + r * ld;
        const Filtered hits =
            filter_row(line, ld, lists.limits[list], points.offset[i], both ? lists.limits + col : nullptr,
                       others.offset + col, row_found.get(), col_found.get());
        if (points.packing == Packing::projected && !points.rough) {
          weigh_pairs(lists, points, i, list, others, col, hits, row_found.get(), col_found.get(), both, skip_self);
          continue;
        }
        // A column's list lies anywhere: ask for its end before it is needed.
        for (int64_t h = 0; h < hits.for_cols; ++h) lists.prefetch(col + col_found.get()[h]);
        lists.add_all(list, points, i, others, col, row_found.get(), hits.for_row, line, skip_self ? i : -1);
        for (int64_t h = 0; h < hits.for_cols; ++h) {
          const int64_t c = col_found.get()[h];
          lists.add(col + c, others, col + c, points, i, line[c]);
        }
      }
    }
  }
}

// A pair of tiles of the graph, or a tile with itself.
template <typename T>
void graph_task(const TilePlan& plan, const Lists<T>& lists, const PackedPoints<T>& points, int64_t first,
                int64_t second) {
  const bool same = first == second;
  visit_tile(lists, points, plan.begin(first), plan.size(first), plan.begin(first), points, plan.begin(second),
             plan.size(second), !same, same);
}

// Queries in blocks, and where these are few the points in parts with a list each.
struct QueryPlan {
  int64_t queries, points, blocks, parts, part_size;

  QueryPlan(int64_t queries, int64_t points) : queries(queries), points(points) {
    blocks = std::max<int64_t>(1, ceil_div(queries, kQueryRows));
    const int64_t wanted = std::max<int64_t>(1, kTasksWanted / blocks);
    part_size = round_up(std::max(ceil_div(points, wanted), kFilterCols), kFilterCols);
    parts = ceil_div(points, part_size);
  }
  int64_t lists() const { return queries * parts; }
  int64_t tasks() const { return blocks * parts; }
};

// One block of queries against one part of the points, or one in `step` blocks of it; the lists of a query lie
// `queries` apart.
template <typename T>
void query_task(const QueryPlan& plan, const Lists<T>& lists, const PackedPoints<T>& queries,
                const PackedPoints<T>& points, int64_t task, int64_t step) {
  const int64_t part = task % plan.parts, first = task / plan.parts * kQueryRows;
  const int64_t begin = part * plan.part_size, end = std::min(begin + plan.part_size, plan.points);
  const int64_t block = step == 1 ? plan.part_size : kFilterCols;
  for (int64_t col = begin; col < end; col += step * block)
    visit_tile(lists, queries, first, std::min(kQueryRows, plan.queries - first), part * plan.queries + first, points,
               col, std::min(block, end - col), false, false);
}

// All pairs of point i without a filter: for values that the bounds do not cover.
template <typename T>
void plain_task(const Lists<T>& lists, const PackedPoints<T>& points, int64_t i, const PackedPoints<T>& others,
                bool skip_self) {
  for (int64_t j = 0; j < others.count; ++j) {
    if (skip_self && i == j) continue;
    if (lists.counts[i] == lists.capacity) lists.keep_exact(i, points, i, others);
    const int64_t at = i * lists.capacity + lists.counts[i]++;
    lists.uppers[at] = 0;
    lists.indices[at] = static_cast<int32_t>(j);
  }
}

}  // namespace deepclust::cpu
