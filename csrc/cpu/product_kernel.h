// Thin matrix products with a fixed summation order: out[m, n] (+)= sum_k A(k, m) B(k, n).
//
// One side of every product here is a handful to a thousand clusters. B is laid out once in panels of three vectors,
// zero-padded to whole vectors, so that the inner loop reads aligned vectors and has no tail. A is only broadcast,
// element by element, so it is read where it lies, with any strides. A tile of 8 x 3 vectors keeps 24 accumulators in
// registers: 11 loads for 24 multiply-adds a step. The sum over k runs in index order whatever the tiling, so that
// the bits do not depend on how the work is shared out.
#pragma once

#include <cstdint>

#include "../common/matrix.h"
#include "../common/numeric.h"

namespace deepclust::cpu {

// B [k, n] as panels: panel j holds the columns from j * kPanel on, as [k][width].
template <typename T>
struct Panels {
  static constexpr int64_t kPanel = 3 * kLanes<T>;
  T* data = nullptr;
  int64_t depth = 0;
  int64_t cols = 0;

  static int64_t size(int64_t depth, int64_t cols) { return depth * round_up(cols, kLanes<T>); }
  int64_t width(int64_t col) const {
    const int64_t left = round_up(cols, kLanes<T>) - col;
    return left < kPanel ? left : kPanel;
  }
};

// Copies b [k, n] into panels.data, which holds Panels<T>::size(k, n) elements.
void lay_out(const Matrix<const float>& b, Panels<float>& panels);
void lay_out(const Matrix<const double>& b, Panels<double>& panels);

// out [a.cols, >= n] (+)= a^T B over the first a.rows rows of B, for the panels that hold columns [0, n).
// Rows of out are ldo apart; whole panels are written, so ldo >= round_up(B.cols, kLanes).
void product(const Matrix<const float>& a, const Panels<float>& b, int64_t n, float* out, int64_t ldo, bool accumulate);
void product(const Matrix<const double>& a, const Panels<double>& b, int64_t n, double* out, int64_t ldo,
             bool accumulate);

}  // namespace deepclust::cpu
