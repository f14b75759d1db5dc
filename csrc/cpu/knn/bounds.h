// What knn's filter says of similarities: -v / 2 for squared distances v, v for inner products.
//
// Plain and bfloat16 rows: what a dot product errs by is at most a term of i and one of j (see knn/knn.h), so bounds
// are sums.
//
// Rows of codes (of 8 bits, or 16): with c' the codes of c = x - mean and e = |c - c'|, the triangle
// says | |c_i - c_j| - |c'_i - c'_j| | <= e_i + e_j. For near points that is far less than the error of a dot product,
// which grows with |c_i| |c_j|: 8 bits let through as few as bfloat16 does. j may be nearer than r only if
// |c'_i - c'_j| < R + e_j, R = r + e_i, and R e_j <= (t R^2 + e_j^2 / t) / 2 for any t > 0 parts this into a term of i
// and one of j:
//
//   c'_i c'_j  >=  |c'_i|^2 / 2 - (1 + t) R^2 / 2  +  |c'_j|^2 / 2 - (1 + 1/t) e_j^2 / 2.
//
// Inner products are distances between rows whose norms are known: with the lift u = |x|^2 / 2,
// x_i x_j = u_i + u_j - |c_i - c_j|^2 / 2, whatever the mean is. Similarities are kept with the lifts of both rows, and
// r^2 = 2 (u_i + u_j - similarity) goes into the two terms, with the largest lift of all in place of u_j where r is
// multiplied by an error. For squared distances u is 0, for cosines it is 1/2, so that nothing is lost.
//
// Coordinates in a subspace (codes/subspace.h) with the length of what is outside of it lie no farther apart than the
// rows do, and so do their codes, but for e. So the same limit serves, though not the other way: nothing says how near
// a candidate is at least. It is kept with what it costs, without error.
//
// t is the usual e / R. Rounding: v itself errs by gamma_(d+3) v, an inner product and its lifts by
// (d / 64 + 20) 2^-23 (u_i + u_j); the sums of the comparison by less than 16 u of the squares in them. All are allowed
// for more than once over; what underflows is in e.
#pragma once

#include <algorithm>
#include <cmath>

#include "../codes/subspace.h"
#include "../gemm/gemm_tile_codes.h"
#include "lanes.h"

namespace deepclust::cpu {

// projected: coordinates in a subspace, in 16 bits.
enum class Packing { plain, bf16, int8, int16, projected };

inline bool is_coded(Packing packing) {
  return packing == Packing::int8 || packing == Packing::int16 || packing == Packing::projected;
}

// Points as both steps read them: whole rows for the exact costs, packed ones and bounds for the filter.
template <typename T>
struct PackedPoints {
  const T* rows = nullptr;  // [count, depth], rows row_stride apart
  int64_t count = 0, depth = 0, row_stride = 0;
  Packing packing = Packing::plain;
  Packing fallback = Packing::plain;  // where codes do not pay
  bool tiles = false;                 // of AMX multiply them, so rows are filled up to whole ones
  Panels<T> packed;
  T* offset = nullptr;  // [padded]: the similarity of (i, j) is at most dot(i, j) - offset[i] - offset[j]
  T* slack = nullptr;   // [padded]: and at least that less slack[i] + slack[j]
  // For codes: offset is the limit's term of j, slack is e, and besides [padded]
  T* half = nullptr;  // |c'|^2 / 2
  T* lift = nullptr;  // u
  T* base =
      nullptr;  // half - u; otherwise the offset. A candidate's similarity is kept as dot(i, j) - base[i] - base[j].
  T* scale = nullptr;
  int32_t* shift = nullptr;
  const Subspace* space = nullptr;  // of projected rows
  T most_lift = 0;                  // of this side and the other
  T share = 0;                      // t
  bool rough = false;               // base and a slack of 0 in place of bounds, to look at what is probably near

  // Whether bounds are those of codes.
  bool coded() const { return is_coded(packing) && !rough; }

  const T* row(int64_t i) const { return rows + i * row_stride; }
  // What comes after the last row: the filter reads whole panels.
  static int64_t padded(int64_t count) { return round_up(count, Panels<T>::kPanel); }
};

namespace codes {
inline constexpr float kMore = 1 + 0x1p-19f;
inline constexpr float kRounding = 0x1p-18f;

// t: 8 bits miss about so much of a row, and longer codes less by as much as they are longer; with coordinates in a
// subspace it is their roundings.
inline float usual_share(Packing packing, int64_t depth) {
  return packing == Packing::int8    ? 0.0125f
         : packing == Packing::int16 ? 0.0125f * 127 / static_cast<float>(code_limit(depth))
                                     : 0.002f;
}
// What a code's e, |c'|^2 / 2 and u add to a limit.
inline float offset(double half, double error, double lift, double share) {
  return static_cast<float>(half * (1 - 0x1p-20) - 0.5 * error * error * (1 + 1 / share) * kMore -
                            lift * (1 + share) * (1 + 0x1p-20));
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
// What similarities of i may err by beyond the codes: inner products and lifts are rounded.
template <typename T>
T wrong(const PackedPoints<T>& points, int64_t i) {
  return (points.lift[i] + points.most_lift) * (static_cast<T>(points.depth) / 64 + 20) * T(0x1p-23);
}
// `similarity` less what `error` of a distance takes off it.
template <typename T>
T lowered(const PackedPoints<T>& points, int64_t i, T similarity, T error) {
  const T lifts = points.lift[i] + points.most_lift;
  return codes::similarity(root(similarity - lifts, points.depth) + error) + lifts;
}
// The roundings of what a candidate is kept with.
template <typename T>
T kept_wrong(const PackedPoints<T>& points, int64_t i, T kept) {
  return kRounding * (points.half[i] + std::abs(kept) + points.lift[i] + points.most_lift);
}
}  // namespace codes

// A similarity that a candidate of i is sure to reach which is kept with this one; `slack` is at least its own.
template <typename T>
T sure_similarity(const PackedPoints<T>& points, int64_t i, T kept, T slack) {
  if (!points.coded()) return kept - (points.slack[i] + slack);
  const T low = kept - codes::kept_wrong(points, i, kept);
  return codes::lowered(points, i, low, points.slack[i] + slack) - codes::wrong(points, i);
}

// What a candidate of i must be kept with that may reach `similarity`.
template <typename T>
T least_kept(const PackedPoints<T>& points, int64_t i, T similarity, T slack) {
  if (!points.coded()) return similarity;
  const T low = codes::lowered(points, i, similarity - codes::wrong(points, i), points.slack[i] + slack);
  return low - codes::kept_wrong(points, i, low);
}

// Point j may reach `similarity` only if its dot product with i reaches this + offset[j].
template <typename T>
T limit_of(const PackedPoints<T>& points, int64_t i, T similarity) {
  if (!points.coded()) return similarity + points.offset[i];
  const T low = codes::lowered(points, i, similarity - codes::wrong(points, i), points.slack[i]) - points.lift[i];
  const T rounded = codes::kRounding * (points.lift[i] + points.most_lift);
  return points.half[i] * (1 - T(0x1p-20)) + low * (1 + points.share) * codes::kMore - rounded;
}

}  // namespace deepclust::cpu
