// Tiles of a matrix product for kernels that look at every entry once: out[m, n] = sum_k A(m, k) B(n, k).
//
// k-NN and k-means form |A| x |B| products that must never exist as a whole: a tile is computed, looked at while it is
// in the cache, and overwritten. Both operands are laid out once, in one and the same format, so that a set can meet
// itself without a second copy: panels (panels.h) whose columns are the rows. As B a panel is read as whole vectors, as
// A eight of its rows are broadcast from one cache line.
//
// A panel of B stays in the first-level cache while the strips of A pass in register tiles (tile.h); the depth is cut
// so that it fits.
//
// It is bound by the multiply-adds: 98 % of what one core of a Zen 4 can issue from a depth of 64 on, 87 % at 16.
//
// An entry is one chain of multiply-adds in the order of k, whatever tile it falls in, so that (i, j) and (j, i) have
// the same bits, and so does every cut of the work.
#pragma once

#include <cstdint>

#include "panels.h"

namespace deepclust::cpu {

// Rows that a strip of A has, and the number that `first_row` and `rows` of A should be multiples of.
inline constexpr int64_t kStripRows = 8;

// Fills the panels of rows [first, first + x.rows), x [.., depth] less `shift` [depth] (null: as it is). first is a
// whole panel, and x ends with a panel or with the last row.
template <typename T>
void pack_rows(const Matrix<const T>& x, const T* shift, const Panels<T>& packed, int64_t first);

// out [m, n] = rows [a_first, a_first + m) of A times rows [b_first, b_first + n) of B, transposed; rows of out are ldo
// apart. a_first is a whole strip and b_first a whole panel. out is written up to whole strips and vectors.
template <typename T>
void gemm_tile(const Panels<T>& a, int64_t a_first, int64_t m, const Panels<T>& b, int64_t b_first, int64_t n, T* out,
               int64_t ldo);

}  // namespace deepclust::cpu
