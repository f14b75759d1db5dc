// What knn's filter says of similarities: -v / 2 for squared distances v, v for inner products.
//
// Plain and bfloat16 rows: what a dot product errs by is at most a term of i and one of j (see knn_kernel.h), so bounds
// are sums.
//
// Rows of 8-bit codes, for squared distances alone: with c' the codes of c = x - mean and e = |c - c'|, the triangle
// says | |c_i - c_j| - |c'_i - c'_j| | <= e_i + e_j. For near points that is far less than the error of a dot product,
// which grows with |c_i| |c_j|: 8 bits let through as few as bfloat16 does. j may be nearer than r only if
// |c'_i - c'_j| < R + e_j, R = r + e_i, and R e_j <= (t R^2 + e_j^2 / t) / 2 for any t > 0 parts this into a term of i
// and one of j:
//
//   c'_i c'_j  >=  |c'_i|^2 / 2 - (1 + t) R^2 / 2  +  |c'_j|^2 / 2 - (1 + 1/t) e_j^2 / 2.
//
// t is the usual e / R. Rounding: v itself errs by gamma_(d+3) v; the sums of the comparison by less than 16 u of the
// squares in them. Both are allowed for more than once over; what underflows is in e.
#pragma once

#include <algorithm>
#include <cmath>

#include "knn_lanes.h"

namespace deepclust::cpu {

enum class Packing { plain, bf16, int8 };

// Points as both steps read them: whole rows for the exact costs, packed ones and bounds for the filter.
template <typename T>
struct PackedPoints {
  const T* rows = nullptr;  // [count, depth], rows row_stride apart
  int64_t count = 0, depth = 0, row_stride = 0;
  Packing packing = Packing::plain;
  PackedRows<T> packed;
  T* offset = nullptr;  // [padded]: the similarity of (i, j) is at most dot(i, j) - offset[i] - offset[j]
  T* slack = nullptr;   // [padded]: and at least that less slack[i] + slack[j]
  // For codes: offset is the limit's term of j, slack is e, and besides [padded]
  T* half = nullptr;  // |c'|^2 / 2
  T* scale = nullptr;
  int32_t* shift = nullptr;

  // A candidate's similarity is kept as dot(i, j) - base()[i] - base()[j].
  const T* base() const { return packing == Packing::int8 ? half : offset; }
  const T* row(int64_t i) const { return rows + i * row_stride; }
  // What comes after the last row: the filter reads whole panels.
  static int64_t padded(int64_t count) { return round_up(count, PackedRows<T>::kPanel); }
};

namespace codes {
inline constexpr float kUsualShare = 0.0125f;  // t
inline constexpr float kMore = 1 + 0x1p-19f;
inline constexpr float kRounding = 0x1p-19f;

// What a code's e and |c'|^2 / 2 add to a limit.
inline float offset(double half, double error) {
  return static_cast<float>(half * (1 - 0x1p-20) - 0.5 * error * error * (1 + 1 / kUsualShare) * kMore);
}
// A distance with the roundings of v, to either side.
template <typename T>
T root(T similarity, int64_t depth) {
  return std::sqrt(std::max(T(0), -2 * similarity)) * (1 + static_cast<T>(depth + 8) * T(0x1p-22));
}
template <typename T>
T similarity(T distance) {
  return T(-0.5) * distance * distance * kMore;
}
}  // namespace codes

// A similarity that a candidate of i is sure to reach which is kept with this one; `slack` is at least its own.
template <typename T>
T sure_similarity(const PackedPoints<T>& points, int64_t i, T kept, T slack) {
  if (points.packing != Packing::int8) return kept - (points.slack[i] + slack);
  const T low = kept - codes::kRounding * (points.half[i] + std::abs(kept));
  return codes::similarity(codes::root(low, points.depth) + points.slack[i] + slack);
}

// What a candidate of i must be kept with that may reach `similarity`.
template <typename T>
T least_kept(const PackedPoints<T>& points, int64_t i, T similarity, T slack) {
  if (points.packing != Packing::int8) return similarity;
  const T low = codes::similarity(codes::root(similarity, points.depth) + points.slack[i] + slack);
  return low - codes::kRounding * (points.half[i] - low);
}

// Point j may reach `similarity` only if its dot product with i reaches this + offset[j].
template <typename T>
T limit_of(const PackedPoints<T>& points, int64_t i, T similarity) {
  if (points.packing != Packing::int8) return similarity + points.offset[i];
  const T low = codes::similarity(codes::root(similarity, points.depth) + points.slack[i]);
  return points.half[i] * (1 - T(0x1p-20)) + low * (1 + codes::kUsualShare) * codes::kMore;
}

}  // namespace deepclust::cpu
