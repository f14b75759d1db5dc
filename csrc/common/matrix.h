// A strided matrix that is only looked at. Bounds are checked in builds with DC_DEBUG_BOUNDS.
#pragma once

#include <cstdint>

#include "macros.h"

#if defined(DC_DEBUG_BOUNDS)
#include <cstdio>
#include <cstdlib>
#endif

namespace deepclust {

template <typename T>
struct Matrix {
  T* data = nullptr;  // [rows, cols]
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t row_stride = 0;
  int64_t col_stride = 1;

  DC_HOST_DEVICE T& operator()(int64_t row, int64_t col) const {
#if defined(DC_DEBUG_BOUNDS)
    if (row < 0 || row >= rows || col < 0 || col >= cols) {
      std::fprintf(stderr, "Matrix: (%lld, %lld) is outside %lld x %lld\n", (long long)row, (long long)col,
                   (long long)rows, (long long)cols);
      std::abort();
    }
#endif
    return data[row * row_stride + col * col_stride];
  }
  DC_HOST_DEVICE Matrix transposed() const { return {data, cols, rows, col_stride, row_stride}; }
};

}  // namespace deepclust
