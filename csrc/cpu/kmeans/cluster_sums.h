// Sums of the members of every cluster as 64-bit integers: exact, so that their order does not matter.
//
// A column of x - mean is scaled by a power of two to integers of up to 2^50 and added up in int64. Integer sums are
// the same in any order and for any number of threads, an element can be taken out again without a trace, and so only
// the points that moved are touched: the sums never drift from what a pass over everything would give. A million
// equal points do not saturate. What is rounded away is 2^-46 of a column's range at 60,000 points, 2^-35 at 10^8.
//
// Traffic: the rows of x that moved, and K x d sums in slices of columns that fit the second-level cache.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../../common/fixed_point.h"
#include "../../common/matrix.h"
#include "../simd/vectors.h"

namespace deepclust::cpu {

struct Move {
  int64_t point;
  int32_t from;  // -1: from nowhere
  int32_t to;
};

// The columns of a slice: a task adds these of all moves.
inline constexpr int64_t kSumColumns = 64;

// Sums over [begin, end) of every column of x [n, d], with least and largest entry.
template <typename T>
struct ColumnStats {
  double* sum;  // [d]
  T* least;     // [d]
  T* largest;   // [d]
};
template <typename T>
void column_stats(const T* x, int64_t d, int64_t begin, int64_t end, const ColumnStats<T>& stats);

// Adds columns [first, last) of the moved points to sums [K, ld]; first is a multiple of kSumColumns. Where there are
// weights [n] in [0, 1], a point counts by its own.
template <typename T>
void add_moves(const Matrix<const T>& x, const T* mean, const double* scale, const double* weights, const Move* moves,
               int64_t count, int64_t first, int64_t last, int64_t* sums, int64_t ld);

// sum over points [begin, end) of |x - mean|^2, weighted where there are weights [n].
template <typename T>
double centred_squares(const T* x, const T* mean, const double* weights, int64_t d, int64_t begin, int64_t end);

}  // namespace deepclust::cpu
