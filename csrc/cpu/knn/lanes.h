// What knn does with whole vectors: the values it promises, the norms of its bounds, and the filter of a tile's row.
#pragma once

#include <cstdint>

#include "../gemm/gemm_tile.h"

namespace deepclust::cpu {

// costs[c] of point x [depth] and row indices[c] (rows lie row_stride apart): the sum of squared differences, or minus
// the inner product. The order of the sum is kmeans_assign's too (simd/lanes.h): it depends on the depth alone and both
// operands play the same part, so that (i, j) and (j, i) have the same bits, and two equal points are at distance 0.
// Whatever is not a number counts as the worst.
template <typename T>
void costs_of(bool squared_distance, const T* x, const T* rows, int64_t row_stride, int64_t depth,
              const int32_t* indices, int64_t count, T* costs);

// norms[r] = |row r|^2 for all rows of the panel that begins at row `first`.
template <typename T>
void panel_norms(const Panels<T>& packed, int64_t first, double* norms);

// A row of dot products against the limits: which of them the row's own list takes, and which its columns' lists take.
struct Filtered {
  int64_t for_row = 0;
  int64_t for_cols = 0;
};

// row_found: the columns c < count with dots[c] >= row_limit + col_offset[c]. col_found, unless col_limit is null:
// those with dots[c] >= row_offset + col_limit[c]. count is in whole vectors; both have room for a vector more.
template <typename T>
Filtered filter_row(const T* dots, int64_t count, T row_limit, T row_offset, const T* col_limit, const T* col_offset,
                    int32_t* row_found, int32_t* col_found);

// A value that at least `least` of the values reach, and at most `most` if the values allow: bisection.
template <typename T>
T reached_by(const T* values, int64_t count, int64_t least, int64_t most);

// Closes up the entries with values[c] >= limit, in order; returns how many.
template <typename T>
int64_t keep_reaching(T* values, int32_t* indices, int64_t count, T limit);

// sums[k] += sum of column k over the rows of x.
template <typename T>
void add_columns(const Matrix<const T>& x, double* sums);

}  // namespace deepclust::cpu
