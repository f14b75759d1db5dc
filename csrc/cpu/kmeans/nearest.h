// The nearest centroid of every point, exactly, at about a quarter of the price of the products.
//
// The definition: the label of x is the lowest k whose D(x, c_k) = sum_d (x_d - c_kd)^2 is smallest, each D computed by
// squared_distance() in one fixed order. Nothing below changes a label; it only leaves out distances that cannot win.
//
// The filter. With both sides centred at `mean`, y = x - mean and z = c - mean, the distances order as
// |z|^2 / 2 - <y, z>. Write y = y' + ey and z = z' + ez, where y' and z' are codes of 8 bits (16 where the processor
// has no instruction for 8) times a scale. Then
//
//   | <y, z> - <y', z'> |  =  | <y', ez> + <ey, z> |  <=  |y'| |ez| + |ey| |z|,
//
// and all four norms are computed, not estimated. So <y', z'>, one exact integer product, brackets every distance; a
// centroid whose lower end lies above the smallest upper end is out. On real features one to five centroids of a
// thousand are left, and where it is one its distance is not needed either. Rounding is covered too: the norms are
// inflated by more than their own error, and the bracket by the error of D itself (see distance_error), so that a
// centroid left out is one whose *computed* D is larger.
//
// Both sides are turned by one orthogonal matrix before they are coded, which changes no product and makes the entries
// of a row alike (see rotate()): columns of very different variance would waste most of the 8 bits.
//
// Where most of the points lies in a few directions (codes/subspace.h), the codes are of the coordinates there, and the
// bracket is wider by |Ry| |Rz|, what both have outside. Centroids of many points have little there: of 784 pixels with
// a thousand clusters the products shrink to a tenth.
//
// Without instructions for codes they are y and z in float, and the same bounds hold with the rounding of the product.
//
// Traffic: a quarter of x, once a pass, and the rows of x that are in doubt. The codes of up to 512 KB of centroids
// stay in the second-level cache while 256 points pass. Of size N x K nothing exists.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "../../common/buffer.h"
#include "../codes/subspace.h"
#include "../gemm/amx.h"
#include "../gemm/code_instructions.h"
#include "../gemm/gemm_tile_codes.h"
#include "../gemm/product.h"
#include "../gemm/row_code_tile.h"
#include "../simd/vectors.h"

namespace deepclust::cpu {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();
inline constexpr int64_t kSearchRows = 256;  // points of a task
inline constexpr int64_t kGroupRows = 32;    // that pass a panel of centroids while it is near, at most

inline constexpr int64_t kAmxDepth = 33;  // k-means of fewer dimensions fills half of a step of tiles at most

// What the processor multiplies: codes of 8 bits, in tiles (gemm/amx.h) or in registers, codes of 16, or floats.
enum class Codes { none, int8, int8_tiles, int16 };

inline Codes best_codes(int64_t d) {
  if (d > kMostCodedDepth) return Codes::none;
  if (have_amx() && d >= kAmxDepth) return Codes::int8_tiles;
  return have_int8_tile() ? Codes::int8 : have_int16_tile() ? Codes::int16 : Codes::none;
}

// y of one point, as the bounds need it: of norm `norm` at most, `rest` of it outside the subspace; codes times `scale`
// have norm `length` and lie within `error` of what is inside.
struct CodeBounds {
  float scale, length, error, rest, norm;
  int32_t shift;  // what b's code of 0 adds to a product of 8-bit codes
};

// Points as the search sees them.
template <typename T>
struct Points {
  const T* x = nullptr;     // [n, d]
  const T* mean = nullptr;  // [d]
  int64_t n = 0;
  int64_t d = 0;
  Codes kind = Codes::none;
  int8_t* codes = nullptr;          // [n + kGroupRows, depth]
  CodeBounds* bounds = nullptr;     // [n]
  const Subspace* space = nullptr;  // whose coordinates are coded, if not all of y

  // Bytes of a row's codes. Narrow points are coded as they are: turning them would fill up a vector.
  static int64_t depth_of(int64_t d, Codes kind) {
    if (kind == Codes::int16) return 2 * round_up(d, d < 16 ? 2 : 16);
    return round_up(d, kind == Codes::int8_tiles ? kAmxBytes : d < 16 ? 4 : 16);
  }
  // Coded entries of a row.
  int64_t coded() const { return space == nullptr ? d : space->width(); }
  int64_t depth() const { return depth_of(coded(), kind); }
  bool turned() const { return kind != Codes::none && d >= 16; }
  // The largest code.
  float limit() const { return kind == Codes::int16 ? static_cast<float>(code_limit(coded())) : 127.0f; }
};

// K centroids with everything the bounds need: of every centroid its distance from the mean and what its codes miss.
template <typename T>
class CodedCentroids {
 public:
  CodedCentroids(const Points<T>& points, int64_t clusters)
      : clusters(clusters),
        padded(round_up(clusters, 16)),
        depth(points.depth()),
        kind(points.kind),
        panels(kind != Codes::none ? padded * depth : 1),
        float_panels(kind != Codes::none ? 1 : Panels<float>::size(points.d, padded)),
        half_low(padded),
        half_high(padded),
        scale(padded),
        code_error(padded),
        length(padded),
        rest(padded) {}

  int64_t clusters, padded, depth;
  Codes kind;
  const T* centroids = nullptr;  // [clusters, d]
  Buffer<uint8_t> panels;
  Buffer<float> float_panels;
  Buffer<float> half_low, half_high;  // |z|^2 / 2, rounded down and up
  Buffer<float> scale, code_error, length, rest;
  float widest_half = 0, most_code_error = 0, most_length = 0, most_rest = 0;  // over all centroids

  // After all blocks are encoded.
  void find_largest() {
    widest_half = most_code_error = most_length = most_rest = 0;
    for (int64_t k = 0; k < clusters; ++k) {
      widest_half = std::max(widest_half, half_high.get()[k] - half_low.get()[k]);
      most_code_error = std::max(most_code_error, code_error.get()[k]);
      most_length = std::max(most_length, length.get()[k]);
      most_rest = std::max(most_rest, rest.get()[k]);
    }
  }

  // Tasks of `encode_centroids`.
  int64_t blocks() const { return ceil_div(padded, kTileCols); }
};

// The squared distance that everything is decided by (simd/lanes.h).
template <typename T>
T squared_distance(const T* x, const T* c, int64_t d);

// Relative error of D: two roundings a term, then the chains and the tree.
template <typename T>
double distance_error(int64_t d) {
  const double steps = static_cast<double>(d) / (4.0 * kLanes<T>)+16.0;
  return 1.5 * steps * (sizeof(T) == 4 ? 0x1p-24 : 0x1p-53);
}

// Fills codes and bounds of points [begin, end).
template <typename T>
void encode_points(const Points<T>& points, int64_t begin, int64_t end);

// Fills block `block` of `coded` from its centroids.
template <typename T>
void encode_centroids(const Points<T>& points, CodedCentroids<T>& coded, int64_t block);

// labels[i - begin] = the nearest centroid of points [begin, end).
template <typename T>
void assign_points(const Points<T>& points, const CodedCentroids<T>& coded, int64_t begin, int64_t end,
                   int64_t* labels);

// distance[i - begin] = min(distance[i - begin], D to the nearest centroid).
template <typename T>
void lower_distances(const Points<T>& points, const CodedCentroids<T>& coded, int64_t begin, int64_t end, T* distance);

// distance[i - begin] = D(x_i, its centroid); the sum of them, in index order.
template <typename T>
double label_distances(const T* x, const T* centroids, int64_t d, const int64_t* labels, int64_t begin, int64_t end,
                       T* distance);

}  // namespace deepclust::cpu
