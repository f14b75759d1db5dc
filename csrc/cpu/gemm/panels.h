// The one layout of every product's wide side: panels of three vectors of columns, depth by depth, zero-padded to whole
// vectors, so that an inner loop reads whole registers and has no tail.
//
// The columns are a matrix's own (product.h) or the rows of a set of points (gemm_tile.h), whichever of the two is laid
// out by its packer, lay_out or pack_rows. Codes of fewer bits lie in Panels<float> of a part of the depth: a float's
// place holds two steps of it, or four.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../../common/matrix.h"
#include "../simd/vectors.h"

namespace deepclust::cpu {

// Panel j holds columns [j * kPanel, ..) as [depth][width], width kPanel, and in the last panel the columns that are
// left, up to whole vectors. A narrow matrix of whole vectors can serve as it lies, row by row (`row_stride` is then
// not 0).
template <typename T>
struct Panels {
  static constexpr int64_t kPanel = 3 * kLanes<T>;
  T* data = nullptr;
  int64_t depth = 0;
  int64_t cols = 0;
  int64_t row_stride = 0;

  // Elements of memory.
  static int64_t size(int64_t depth, int64_t cols) { return depth * round_up(cols, kLanes<T>); }
  // Elements from one step of the depth to the next, at column col.
  int64_t width(int64_t col) const {
    return row_stride != 0 ? row_stride : std::min(kPanel, round_up(cols, kLanes<T>) - col / kPanel * kPanel);
  }
  // Where the tile that holds column col must end.
  int64_t stop(int64_t col) const { return row_stride != 0 ? col + kPanel : (col / kPanel + 1) * kPanel; }
  T* at(int64_t col) const {
    return row_stride != 0 ? data + col : data + col / kPanel * kPanel * depth + col % kPanel;
  }
};

// A row-major matrix [depth, ld] as it lies.
template <typename T>
Panels<T> row_major_panels(const T* data, int64_t depth, int64_t ld) {
  return {const_cast<T*>(data), depth, ld, ld};
}

}  // namespace deepclust::cpu
