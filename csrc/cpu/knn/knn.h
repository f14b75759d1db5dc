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
// Where the processor multiplies bfloat16, the filter does: rows rounded to c + e err by |e_i| |c_j| + |c_i| |e_j| +
// |e_i| |e_j| more, and |e_i| |c_j| <= (|e_i|^2 / r + r |c_j|^2) / 2 for any r > 0 parts that into a term of i and one
// of j. r is a rounded row's usual |e| / |c|. The filter lets through half as many again at k = 20, a quarter at k =
// 200, and costs half; the result is the same, bit for bit.
//
// Codes of 8 bits (VNNI) cost a quarter; other processors take 16 bits. Cosine and inner product use them as distances
// too, through the norms. Dot products of codes alone would let through eighteen times k on real features (four
// times once turned), but as distances they tell near points apart: 36 candidates of 60,000 at k = 20 where bfloat16
// leaves 28 (knn/bounds.h). A graph of 60,000 x 128 real features takes 37 % less time at k = 1 and 26 % less at k =
// 20, and none less at k = 200, where the lists take the time; points in no structure, all about equally far, take up
// to 2.4 times as long. So a few rows are asked first (codes_pay).
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

#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#include "../codes/knn_codes.h"
#include "../gemm/gemm_tile_bf16.h"
#include "../gemm/vnni.h"
#include "lists.h"

namespace deepclust::cpu {

inline constexpr int64_t kFilterRows = 192;   // of A in a tile of dot products
inline constexpr int64_t kFilterCols = 480;   // of B: whole panels of float and of double
inline constexpr int64_t kMatchRows = 960;    // most rows of a tournament's tile
inline constexpr int64_t kTilesWanted = 64;   // fewer tiles than this and they are made smaller
inline constexpr int64_t kQueryRows = 192;    // queries of a task
inline constexpr int64_t kTasksWanted = 16;   // few queries: their candidates are cut as well
inline constexpr int64_t kCodedDepth = 64;    // int8 is tried from this many dimensions,
inline constexpr int64_t kCodedK = 128;       // up to this k,
inline constexpr int64_t kCodedRows = 1024;   // and from this many rows;
inline constexpr int64_t kCodedDepth16 = 24;  // codes of 16 bits from this many dimensions
inline constexpr double kDoubtWorth = 50000;  // multiply-adds that one more candidate costs
inline constexpr double kFewestDoubts = 8;    // fewer of them to spare and it is not tried

template <typename T>
inline constexpr T kRoundoff = std::numeric_limits<T>::epsilon() / 2;

// Whether the bounds hold for points of this depth and with norms up to this.
template <typename T>
bool bounds_hold(double largest_norm, int64_t depth) {
  return largest_norm < std::numeric_limits<T>::max() / 64 && static_cast<double>(depth) * kRoundoff<T> < 0.01;
}

// The rows of a panel as codes, with their bounds; raises `largest` to the largest norm.
inline void code_panel(const PackedPoints<float>& points, const Matrix<const float>& x, const float* mean, bool squared,
                       int64_t first, double& largest) {
  // What a product of scales may lose to underflow, and v: as a distance.
  const double tiny = std::sqrt(65536.0 * static_cast<double>(points.depth + 8) * std::numeric_limits<float>::min());
  CodeFacts facts[PackedRows<float>::kPanel];
  if (points.packing == Packing::projected)
    code_rows_in(*points.space, x, mean, code_limit(points.space->width()), points.packed, first, facts);
  else
    code_rows(x, mean, points.packing == Packing::int8 ? 127 : code_limit(points.depth), points.packed, first, facts);
  for (int64_t r = 0; r < x.rows; ++r) {
    const CodeFacts& fact = facts[r];
    if (!(fact.norm <= largest)) largest = fact.norm;
    if (!std::isfinite(fact.norm)) continue;
    if (!squared) largest = std::max(largest, fact.whole);
    const double error = fact.error * (1 + 0x1p-23) + tiny, lift = squared ? 0.0 : 0.5 * fact.whole;
    points.half[first + r] = static_cast<float>(fact.half);
    points.lift[first + r] = static_cast<float>(lift);
    points.base[first + r] = static_cast<float>(fact.half - lift);
    points.slack[first + r] = static_cast<float>(error);
    points.offset[first + r] = codes::offset(fact.half, error * (1 + 0x1p-23), lift, points.share);
    points.scale[first + r] = fact.scale;
    points.shift[first + r] = fact.shift;
  }
}

// Packs rows [first, first + count) less `mean` (null: as they are) and sets their bounds; returns the largest norm.
// first is a whole panel. NaN comes back where a row holds one.
template <typename T>
double prepare_rows(const PackedPoints<T>& points, const T* mean, bool squared, int64_t first, int64_t count) {
  constexpr int64_t kPanel = PackedRows<T>::kPanel;
  constexpr double kUsualError = 0.0016;  // r
  const double eps = (2.5 * static_cast<double>(points.depth) + 64) * kRoundoff<T>;
  const double tiny = 8 * static_cast<double>(points.depth + 8) * std::numeric_limits<T>::min();
  const bool rounded = points.packing == Packing::bf16;
  const Buffer<T> memory(rounded ? PackedRows<T>::size(kPanel, points.depth) : 0);
  double largest = 0;
  for (int64_t row = first; row < first + count; row += kPanel) {
    const int64_t rows = std::min(kPanel, first + count - row);
    const Matrix<const T> x{points.row(row), rows, points.depth, points.row_stride, 1};
    double norms[kPanel], errors[kPanel] = {};
    if constexpr (std::is_same_v<T, float>) {
      if (is_coded(points.packing)) {
        code_panel(points, x, mean, squared, row, largest);
        continue;
      }
      if (rounded) {
        const PackedRows<T> panel{memory.get(), rows, points.depth};
        pack_rows(x, mean, panel, 0);
        panel_norms(panel, 0, norms);
        round_panel_bf16(panel, 0, points.packed, row, errors);
      }
    }
    if (!rounded) {
      pack_rows(x, mean, points.packed, row);
      panel_norms(points.packed, row, norms);
    }
    for (int64_t r = 0; r < rows; ++r) {
      if (!(norms[r] <= largest)) largest = norms[r];
      double error = eps * norms[r] + tiny;
      if (rounded) error += 0.5 * (errors[r] / kUsualError + kUsualError * norms[r]) + 0.5 * errors[r];
      points.offset[row + r] = static_cast<T>((squared ? 0.5 : 0.0) * norms[r] - error);
      points.slack[row + r] = static_cast<T>(2.01 * error);
    }
  }
  return largest;
}

// Dot products of the packed rows, as exactly as they are packed.
template <typename T>
void product_tile(const PackedPoints<T>& points, int64_t a_first, int64_t m, const PackedPoints<T>& others,
                  int64_t b_first, int64_t n, T* out, int64_t ldo) {
  if constexpr (std::is_same_v<T, float>) {
    if (points.packing == Packing::bf16)
      return gemm_tile_bf16(points.packed, a_first, m, others.packed, b_first, n, out, ldo);
    const CodedRows a{points.packed, points.scale, points.shift}, b{others.packed, others.scale, others.shift};
    if (points.packing == Packing::int8) return gemm_tile_int8(a, a_first, m, b, b_first, n, out, ldo);
    if (is_coded(points.packing)) return gemm_tile_int16(a, a_first, m, b, b_first, n, out, ldo);
  }
  gemm_tile(points.packed, a_first, m, others.packed, b_first, n, out, ldo);
}

// The tournament of `tiles` players (an even number; a last one beyond the real tiles sits out): pair `task` of
// `round`.
inline std::pair<int64_t, int64_t> tournament_pair(int64_t players, int64_t round, int64_t task) {
  const int64_t ring = players - 1;
  if (task == 0) return {round, ring};
  return {(round + task) % ring, (round + ring - task) % ring};
}

// What the filter falls back on.
template <typename T>
Packing packing_without_codes() {
  return std::is_same_v<T, float> && have_gemm_tile_bf16() ? Packing::bf16 : Packing::plain;
}

// How many candidates a row more, left by codes, are paid for by the multiply-adds that they save.
inline double doubts_paid(int64_t points, int64_t depth, bool graph) {
  return static_cast<double>(points) * static_cast<double>(depth) / (graph ? 2 * kDoubtWorth : kDoubtWorth);
}

// The packing to try first. 8-bit codes pay where the products are most of the work: not for few points or dimensions,
// and not where long lists take the time. 16 bits let through no more than floats do.
template <typename T>
Packing first_packing(int64_t rows, int64_t points, int64_t depth, int64_t k, bool graph) {
  if constexpr (std::is_same_v<T, float>)
    if (depth <= kMostCodedDepth && rows >= kCodedRows) {
      if (have_int16_tile() && depth >= kCodedDepth16) return Packing::int16;
      if (have_vnni() && depth >= kCodedDepth && k <= kCodedK && doubts_paid(points, depth, graph) > kFewestDoubts)
        return Packing::int8;
    }
  return packing_without_codes<T>();
}

template <typename T>
void set_packing(PackedPoints<T>& points, Packing packing, const Subspace* space = nullptr) {
  points.packing = packing;
  points.space = space;
  if (!is_coded(packing)) points.base = points.offset;
  if (is_coded(packing)) points.share = codes::usual_share(packing, points.depth);
  points.packed.depth = packing == Packing::int8        ? int8_depth(points.depth)
                        : packing == Packing::int16     ? int16_depth(points.depth)
                        : packing == Packing::projected ? int16_depth(space->width())
                        : packing == Packing::bf16      ? bf16_depth(points.depth)
                                                        : points.depth;
}

// Whether codes tell the neighbours apart: asked of a few strips of rows, since it depends on the data (of points in no
// structure many are about equally far). The result is the same either way.
inline bool codes_pay(const PackedPoints<float>& rows, const PackedPoints<float>& points, int64_t k, bool graph) {
  constexpr int64_t kStrips = 4;
  const int64_t padded = round_up(points.count, kLanes<float>);
  const Buffer<float> dots(kStripRows * padded);
  double doubts = 0;
  for (int64_t strip = 0; strip < kStrips; ++strip) {
    const int64_t first = rows.count / kStrips * strip / kStripRows * kStripRows;
    product_tile(rows, first, kStripRows, points, 0, points.count, dots.get(), padded);
    for (int64_t r = 0; r < kStripRows; ++r) {
      float* const kept = dots.get() + r * padded;
      for (int64_t j = 0; j < points.count; ++j) kept[j] -= rows.base[first + r] + points.base[j];
      if (graph) kept[first + r] = kept[first + r + 1];  // not the row itself
      const float reached = reached_by(kept, points.count, k, k + k / 8);
      float slack = 0;
      for (int64_t j = 0; j < points.count; ++j)
        if (kept[j] >= reached) slack = std::max(slack, points.slack[j]);
      const float least = least_kept(rows, first + r, sure_similarity(rows, first + r, reached, slack), slack);
      doubts += static_cast<double>(std::count_if(kept, kept + points.count, [&](float v) { return v >= least; }));
    }
  }
  return doubts / (kStrips * kStripRows) - 1.2 * static_cast<double>(k) <
         doubts_paid(points.count, points.depth, graph);
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
