// Rows of knn as codes of 8 or 16 bits, for gemm_tile_int8 and gemm_tile_int16.
#pragma once

#include "../gemm/gemm_tile_codes.h"
#include "subspace.h"

namespace deepclust::cpu {

// What the filter knows of a row y = x - mean, turned, and of y', its codes times their scale.
struct CodeFacts {
  double norm;   // |y|^2; where it is not finite, nothing else is set
  double whole;  // |x|^2
  double half;   // |y'|^2 / 2
  double error;  // at least |y - y'|, with the rounding of y itself
  float scale;
  int32_t shift;  // of 8-bit codes
};

// Codes rows [first, first + x.rows) into their place in `codes`, with facts [x.rows]; 8 bits where `limit` is 127, 16
// otherwise. Products of rows are those of x less mean: the turn is one orthogonal matrix for all (see rotate() in
// row_codes.h).
void code_rows(const Matrix<const float>& x, const float* mean, int32_t limit, const Panels<float>& codes,
               int64_t first, CodeFacts* facts);

// As code_rows, in 16 bits, of (a, |Ry|) in place of y: coordinates in the subspace, less the last, and what is outside
// of them. Distances between such rows are at most those of the rows themselves; `norm` is theirs too.
void code_rows_in(const Subspace& space, const Matrix<const float>& x, const float* mean, int32_t limit,
                  const Panels<float>& codes, int64_t first, CodeFacts* facts);

}  // namespace deepclust::cpu
