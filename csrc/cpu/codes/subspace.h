// A few directions that hold most of what points differ in, so that a filter may multiply those alone.
//
// V [d, r] with nearly orthonormal columns splits y into its part in their span, with coordinates a = V^T y, and the
// rest Ry. Of two rows, with b = V^T z,
//
//   | <y, z> - <a, b> |  <=  |Ry| |Rz| + slack |y| |z|,
//
// and |Ry| follows from |y| and |a|: the centroids of many points have next to nothing outside the span, so that the
// bound is close (k-means). Two points do not, but their distance is at least that of (a, |Ry|) from (b, |Rz|), which
// tells most pairs apart (k-NN). Both hold for any V, however well that was chosen. `slack` is what V's columns lack in
// being orthonormal, measured in double, and the roundings of a and b: with delta = |V^T V - I|, the product of the
// parts in the span is a^T (V^T V)^-1 b, which differs from <a, b> by 1.1 delta |a| |b|, and a computed by chains of c
// roundings errs by at most pi |y|, pi = 2 u c sqrt(r). With Q = V (V^T V)^-1/2, whose columns are orthonormal,
// |a - Q^T y| <= (1.1 delta + pi) |y|.
//
// V comes from a sample of the points: two steps of orthogonal iteration towards the leading eigenvectors of its
// covariance, from signs drawn by a hash.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "../gemm/product.h"

namespace deepclust::cpu {

// Rows less the mean, none of which the directions come from, and what they are along these, the widest first.
struct SubspaceSample {
  const float* rows;  // [count, size]
  int64_t count, size;
  const float* coordinates;  // [count, width]
  int64_t width;             // in whole vectors
};

// How many of the directions found to take, in whole vectors; 0 if no number of them is worth it.
using SubspaceWidth = std::function<int64_t(const SubspaceSample&)>;

// The fewest that leave no more than this share of the sample's squares outside.
SubspaceWidth width_leaving(double share);

class Subspace {
 public:
  // Of x [n, d] with rows x_stride apart.
  template <typename T>
  static Subspace of(const T* x, int64_t x_stride, const T* mean, int64_t n, int64_t d, const SubspaceWidth& choose);

  int64_t width() const { return width_; }  // r in whole vectors, 0 where there is none
  float slack() const { return slack_; }

  // out [rows, width] of y [rows, ld].
  void project(const float* y, int64_t rows, int64_t ld, float* out) const;

  // An upper bound of |Ry| from the squares of |y| and |a| as summed in float.
  float rest(float square, float within) const;

  // |Ry|, as near as those squares tell, and the distance of (a, length) from (Q^T y, |Ry|) at most. `a` may leave out
  // columns.
  struct Outside {
    float length, error;
  };
  Outside outside(float square, float within) const;

 private:
  friend struct FindSubspace;

  // Steps of the depth that are summed in one chain.
  static constexpr int64_t kChain = 128;

  std::vector<float> columns_;  // as panels, of kChain steps each
  int64_t depth_ = 0, width_ = 0;
  double delta_ = 0.0, rounding_ = 0.0;
  float slack_ = 0.0f;
};

}  // namespace deepclust::cpu
