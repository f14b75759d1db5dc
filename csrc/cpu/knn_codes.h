// Rows of knn as 8-bit codes, for gemm_tile_int8.
#pragma once

#include "gemm_tile_int8.h"

namespace deepclust::cpu {

// What the filter knows of a row y = x - mean, turned, and of y', its codes times their scale.
struct CodeFacts {
  double norm;   // |y|^2; where it is not finite, nothing else is set
  double half;   // |y'|^2 / 2
  double error;  // at least |y - y'|, with the rounding of y itself
  float scale;
  int32_t shift;
};

// Codes rows [first, first + x.rows) into their place in `codes`, with facts [x.rows]. Products of rows are those of x
// less mean: the turn is one orthogonal matrix for all (see rotate() in nearest_codes.h).
void code_rows(const Matrix<const float>& x, const float* mean, const PackedRows<float>& codes, int64_t first,
               CodeFacts* facts);

}  // namespace deepclust::cpu
