// A strided matrix that is only looked at.
#pragma once

#include <cstdint>

#include "macros.h"

namespace deepclust {

template <typename T>
struct Matrix {
  T* data = nullptr;  // [rows, cols]
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_stride = 0;
  int64_t col_stride = 1;

  // Rows [row, row + height) and columns [col, col + width).
  DC_HOST_DEVICE Matrix block(int64_t row, int64_t col, int64_t height, int64_t width) const {
    return {data + row * row_stride + col * col_stride, height, width, row_stride, col_stride};
  }
  DC_HOST_DEVICE Matrix transposed() const { return {data, cols, rows, col_stride, row_stride}; }
};

}  // namespace deepclust
