// What knn does with whole vectors: the values it promises, the norms of its bounds, and the filter of a tile's row.
#pragma once

#include <cstdint>

#include "gemm_tile.h"

namespace deepclust::cpu {

// A point that may be among a list's neighbours, with a lower bound of its similarity.
template <typename T>
struct Candidate {
  T lower;
  int32_t index;
};

// costs[c] of point x [depth] and the candidates' rows (row_stride apart): the sum of squared differences, or minus the
// inner product. The sum's order depends on the depth alone and both operands play the same part, so that (i, j) and
// (j, i) have the same bits, and two equal points are at distance 0. Whatever is not a number counts as the worst.
void costs_of(bool squared_distance, const float* x, const float* rows, int64_t row_stride, int64_t depth,
              const Candidate<float>* candidates, int64_t count, float* costs);
void costs_of(bool squared_distance, const double* x, const double* rows, int64_t row_stride, int64_t depth,
              const Candidate<double>* candidates, int64_t count, double* costs);

// norms[r] = |row r|^2 for all rows of the panel that begins at row `first`.
void panel_norms(const PackedRows<float>& packed, int64_t first, double* norms);
void panel_norms(const PackedRows<double>& packed, int64_t first, double* norms);

// The columns c < count with dots[c] >= row_limit + col_offset[c], or, with `both`, dots[c] >= row_offset +
// col_limit[c]; returns how many. count is in whole vectors; found has room for a vector more.
int64_t filter_row(const float* dots, int64_t count, bool both, float row_limit, float row_offset,
                   const float* col_limit, const float* col_offset, int32_t* found);
int64_t filter_row(const double* dots, int64_t count, bool both, double row_limit, double row_offset,
                   const double* col_limit, const double* col_offset, int32_t* found);

// sums[k] += sum of column k over the rows of x.
void add_columns(const Matrix<const float>& x, double* sums);
void add_columns(const Matrix<const double>& x, double* sums);

}  // namespace deepclust::cpu
