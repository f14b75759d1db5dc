// Thin matrix products with a fixed summation order: out[m, n] (+)= sum_k A(k, m) B(k, n).
//
// One side of every product here is a handful to a thousand clusters. B is laid out once in panels (panels.h). A is
// only broadcast, element by element, so it is read where it lies, with any strides. The register tile is tile.h's. The
// sum over k runs in index order whatever the tiling, so that the bits do not depend on how the work is shared out.
#pragma once

#include <cstdint>

#include "panels.h"

namespace deepclust::cpu {

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
  const Panels<T> panels{memory, b.rows, b.cols};
  lay_out(b, panels, 0);
  return panels;
}

}  // namespace deepclust::cpu
