// A few directions that hold most of what points differ in, so that a filter may multiply those alone.
//
// V [d, r] with nearly orthonormal columns splits y into its part in their span, with coordinates a = V^T y, and the
// rest Ry. Of two rows, with b = V^T z,
//
//   | <y, z> - <a, b> |  <=  |Ry| |Rz| + slack |y| |z|,
//
// and |Ry| follows from |y| and |a|: the centroids of many points have next to nothing outside the span, so that the
// bound is close. It holds for any V, however well that was chosen. `slack` is what V's columns lack in being
// orthonormal, measured in double, and the roundings of a and b: with delta = |V^T V - I|, the product of the parts in
// the span is a^T (V^T V)^-1 b, which differs from <a, b> by 1.1 delta |a| |b|, and a computed by a chain of d
// roundings errs by at most pi |y|, pi = 2 u d sqrt(r).
//
// V comes from a sample of the points: two steps of orthogonal iteration towards the leading eigenvectors of its
// covariance, from signs drawn by a hash.
#pragma once

#include <cstdint>
#include <vector>

#include "../gemm/product.h"

namespace deepclust::cpu {

class Subspace {
 public:
  // None, if too much of the sample lies outside of any of the widths tried.
  template <typename T>
  static Subspace of(const T* x, const T* mean, int64_t n, int64_t d);

  int64_t width() const { return width_; }  // r in whole vectors, 0 where there is none
  float slack() const { return slack_; }

  // out [rows, width] of y [rows, ld].
  void project(const float* y, int64_t rows, int64_t ld, float* out) const {
    const Panels<float> panels{const_cast<float*>(columns_.data()), depth_, width_};
    product(Matrix<const float>{y, depth_, rows, 1, ld}, panels, 0, width_, out, width_, false);
  }

  // An upper bound of |Ry| from the squares of |y| and |a| as summed in float.
  float rest(float square, float within) const;

 private:
  friend struct FindSubspace;

  std::vector<float> columns_;  // as panels
  int64_t depth_ = 0, width_ = 0;
  double delta_ = 0.0, rounding_ = 0.0;
  float slack_ = 0.0f;
};

}  // namespace deepclust::cpu
