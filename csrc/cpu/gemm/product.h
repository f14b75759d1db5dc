// Thin matrix products with a fixed summation order: out[m, n] (+)= sum_k A(k, m) B(k, n).
//
// One side of every product here is a handful to a thousand clusters. B is laid out once in panels of three vectors,
// zero-padded to whole vectors, so that the inner loop reads whole registers and has no tail. A is only broadcast,
// element by element, so it is read where it lies, with any strides. The register tile is tile.h's. The sum over k runs
// in index order whatever the tiling, so that the bits do not depend on how the work is shared out.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../../common/matrix.h"
#include "../simd/vectors.h"

namespace deepclust::cpu {

// B [depth, cols] as panels: panel j holds the columns from j * kPanel on, as [depth][width]. cols is in whole vectors.
// A narrow matrix of whole vectors can serve as it lies, row by row (`row_stride` is then not 0).
template <typename T>
struct Panels {
  static constexpr int64_t kPanel = 3 * kLanes<T>;
  T* data = nullptr;
  int64_t depth = 0;
  int64_t cols = 0;
  int64_t row_stride = 0;

  static int64_t size(int64_t depth, int64_t cols) { return depth * round_up(cols, kLanes<T>); }
  // Elements from one step of the depth to the next, at column col.
  int64_t step(int64_t col) const {
    return row_stride != 0 ? row_stride : std::min(cols - col / kPanel * kPanel, kPanel);
  }
  // Where the tile that holds column col must end.
  int64_t stop(int64_t col) const { return row_stride != 0 ? col + kPanel : (col / kPanel + 1) * kPanel; }
  T* at(int64_t col) const {
    return row_stride != 0 ? data + col : data + col / kPanel * kPanel * depth + col % kPanel;
  }
};

// Copies b [depth, n] into the columns from `first` (a whole vector) on, zero up to the next whole vector.
template <typename T>
void lay_out(const Matrix<const T>& b, const Panels<T>& panels, int64_t first);

// out [a.cols, end - begin] (+)= a^T B[0 .. a.rows, begin .. end), rows of out ldo apart. begin is a whole vector, or
// any column of a row-major B; B is read and out written up to the end of the last vector.
template <typename T>
void product(const Matrix<const T>& a, const Panels<T>& b, int64_t begin, int64_t end, T* out, int64_t ldo,
             bool accumulate);

// All of b [depth, n] in panels of their own, in the memory given (Panels<T>::size(depth, n) elements).
template <typename T>
Panels<T> panels_of(const Matrix<const T>& b, T* memory) {
  const Panels<T> panels{memory, b.rows, round_up(b.cols, kLanes<T>)};
  lay_out(b, panels, 0);
  return panels;
}

// A row-major matrix [depth, ld] as it lies.
template <typename T>
Panels<T> row_major_panels(const T* data, int64_t depth, int64_t ld) {
  return {const_cast<T*>(data), depth, ld, ld};
}

}  // namespace deepclust::cpu
