// What knn does with whole vectors: the values it promises, the norms of its bounds, and the filter of a tile's row.
#pragma once

#include <cstdint>

#include "gemm_tile.h"

namespace deepclust::cpu {

// costs[c] of point x [depth] and row indices[c] (rows lie row_stride apart): the sum of squared differences, or minus
// the inner product. The sum's order depends on the depth alone and both operands play the same part, so that (i, j)
// and (j, i) have the same bits, and two equal points are at distance 0. Whatever is not a number counts as the worst.
void costs_of(bool squared_distance, const float* x, const float* rows, int64_t row_stride, int64_t depth,
              const int32_t* indices, int64_t count, float* costs);
void costs_of(bool squared_distance, const double* x, const double* rows, int64_t row_stride, int64_t depth,
              const int32_t* indices, int64_t count, double* costs);

// norms[r] = |row r|^2 for all rows of the panel that begins at row `first`.
void panel_norms(const PackedRows<float>& packed, int64_t first, double* norms);
void panel_norms(const PackedRows<double>& packed, int64_t first, double* norms);

// A row of dot products against the limits: which of them the row's own list takes, and which its columns' lists take.
struct Filtered {
  int64_t for_row = 0;
  int64_t for_cols = 0;
};

// row_found: the columns c < count with dots[c] >= row_limit + col_offset[c]. col_found, unless col_limit is null:
// those with dots[c] >= row_offset + col_limit[c]. count is in whole vectors; both have room for a vector more.
Filtered filter_row(const float* dots, int64_t count, float row_limit, float row_offset, const float* col_limit,
                    const float* col_offset, int32_t* row_found, int32_t* col_found);
Filtered filter_row(const double* dots, int64_t count, double row_limit, double row_offset, const double* col_limit,
                    const double* col_offset, int32_t* row_found, int32_t* col_found);

// A value that at least `least` of the values reach, and at most `most` if the values allow: bisection.
float reached_by(const float* values, int64_t count, int64_t least, int64_t most);
double reached_by(const double* values, int64_t count, int64_t least, int64_t most);

// Closes up the entries with values[c] >= limit, in order; returns how many.
int64_t keep_reaching(float* values, int32_t* indices, int64_t count, float limit);
int64_t keep_reaching(double* values, int32_t* indices, int64_t count, double limit);

// sums[k] += sum of column k over the rows of x.
void add_columns(const Matrix<const float>& x, double* sums);
void add_columns(const Matrix<const double>& x, double* sums);

}  // namespace deepclust::cpu
