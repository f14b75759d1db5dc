// How knn's filter reads rows: packed as they are, in bfloat16, as codes, or as coordinates in a subspace, with the
// bounds that go with each (knn/bounds.h), and which of these is best.
#pragma once

#include <cmath>
#include <limits>
#include <type_traits>

#include "../codes/knn_codes.h"
#include "../gemm/code_instructions.h"
#include "../gemm/gemm_tile_bf16.h"
#include "bounds.h"
#include "projection.h"

namespace deepclust::cpu {

inline constexpr int64_t kCodedDepth = 24;      // codes are tried from this many dimensions
inline constexpr int64_t kCodedRows = 1024;     // and this many rows on;
inline constexpr int64_t kCodedK = 128;         // those of 8 bits up to this k,
inline constexpr int64_t kCodedKOfTiles = 256;  // or this one, where tiles multiply them
inline constexpr double kDoubtWorth = 50000;    // multiply-adds that one more candidate costs
inline constexpr double kFewestDoubts = 8;      // fewer of them to spare and it is not tried

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
  CodeFacts facts[Panels<float>::kPanel];
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
  constexpr int64_t kPanel = Panels<T>::kPanel;
  constexpr double kUsualError = 0.0016;  // r
  const double eps = (2.5 * static_cast<double>(points.depth) + 64) * kRoundoff<T>;
  const double tiny = 8 * static_cast<double>(points.depth + 8) * std::numeric_limits<T>::min();
  const bool rounded = points.packing == Packing::bf16;
  const Buffer<T> memory(rounded ? Panels<T>::size(points.depth, kPanel) : 0);
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
        const Panels<T> panel{memory.get(), points.depth, rows};
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
      return gemm_tile_bf16(points.packed, a_first, m, others.packed, b_first, n, points.tiles, out, ldo);
    const CodedRows a{points.packed, points.scale, points.shift}, b{others.packed, others.scale, others.shift};
    if (points.packing == Packing::int8) return gemm_tile_int8(a, a_first, m, b, b_first, n, points.tiles, out, ldo);
    if (is_coded(points.packing)) return gemm_tile_int16(a, a_first, m, b, b_first, n, out, ldo);
  }
  gemm_tile(points.packed, a_first, m, others.packed, b_first, n, out, ldo);
}

// What the filter falls back on.
template <typename T>
Packing packing_without_codes(int64_t depth, bool tiles, bool rounded) {
  return std::is_same_v<T, float> && rounded && bf16_pays(depth, tiles) ? Packing::bf16 : Packing::plain;
}

// How many candidates a row more, left by codes, are paid for by the multiply-adds that they save.
inline double doubts_paid(int64_t points, int64_t depth, bool graph) {
  return static_cast<double>(points) * static_cast<double>(depth) / (graph ? 2 * kDoubtWorth : kDoubtWorth);
}

// The packing to try first. 8-bit codes pay where the products are most of the work: not for few points or dimensions,
// and not where long lists take the time. 16 bits let through no more than floats do.
template <typename T>
Packing first_packing(int64_t rows, int64_t points, int64_t depth, int64_t k, bool graph, bool tiles, bool rounded) {
  if constexpr (std::is_same_v<T, float>)
    if (depth >= kCodedDepth && depth <= kMostCodedDepth && rows >= kCodedRows) {
      // In registers of 32 bytes, 8 bits of all entries are worth less than 16 of a few coordinates.
      const bool eight = have_int8_tile() && (simd_level() == Level::avx512 || depth < kLeastProjectedDepth);
      if (eight && k <= (tiles ? kCodedKOfTiles : kCodedK) && doubts_paid(points, depth, graph) > kFewestDoubts)
        return Packing::int8;
      if (have_int16_tile()) return Packing::int16;
    }
  return packing_without_codes<T>(depth, tiles, rounded);
}

template <typename T>
void set_packing(PackedPoints<T>& points, Packing packing, const Subspace* space = nullptr) {
  points.packing = packing;
  points.space = space;
  if (!is_coded(packing)) points.base = points.offset;
  if (is_coded(packing)) points.share = codes::usual_share(packing, points.depth);
  points.packed.depth = packing == Packing::int8        ? int8_depth(points.depth, points.tiles)
                        : packing == Packing::int16     ? int16_depth(points.depth)
                        : packing == Packing::projected ? int16_depth(space->width())
                        : packing == Packing::bf16      ? bf16_depth(points.depth, points.tiles)
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

}  // namespace deepclust::cpu
