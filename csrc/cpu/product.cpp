#include <algorithm>

#include "product_kernel.h"

namespace deepclust::cpu {
namespace {

template <typename T>
DC_INLINE void lay_out_inline(const Matrix<const T>& b, Panels<T>& panels) {
  panels.depth = b.rows;
  panels.cols = b.cols;
  for (int64_t col = 0; col < b.cols; col += Panels<T>::kPanel) {
    const int64_t filled = std::min<int64_t>(Panels<T>::kPanel, b.cols - col);
    const int64_t width = panels.width(col);
    T* __restrict__ out = panels.data + col * b.rows;
    for (int64_t k = 0; k < b.rows; ++k, out += width) {
      const T* __restrict__ row = b.data + k * b.row_stride + col * b.col_stride;
      if (b.col_stride == 1) {
        for (int64_t j = 0; j < filled; ++j) out[j] = row[j];
      } else {
        for (int64_t j = 0; j < filled; ++j) out[j] = row[j * b.col_stride];
      }
      for (int64_t j = filled; j < width; ++j) out[j] = T(0);
    }
  }
}

// M rows by V vectors of out, over `depth` steps: a [depth, M] strided, panel [depth, V vectors].
template <int M, int V, typename T>
DC_INLINE void tile(int64_t depth, const T* __restrict__ a, int64_t depth_stride, int64_t row_stride,
                    const T* __restrict__ panel, T* __restrict__ out, int64_t ldo, bool accumulate) {
  using Vec = typename VectorOf<T>::type;
  const auto at = [&](int m, int v) { return reinterpret_cast<Vec*>(out + m * ldo + v * kLanes<T>); };
  Vec sum[M][V];
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < V; ++v) sum[m][v] = accumulate ? *at(m, v) : Vec{};
  for (int64_t k = 0; k < depth; ++k, a += depth_stride, panel += V * kLanes<T>) {
    Vec b[V];
    for (int v = 0; v < V; ++v) b[v] = *reinterpret_cast<const Vec*>(panel + v * kLanes<T>);
    for (int m = 0; m < M; ++m)
      for (int v = 0; v < V; ++v) sum[m][v] += b[v] * a[m * row_stride];
  }
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < V; ++v) *at(m, v) = sum[m][v];
}

template <int V, typename T>
DC_INLINE void panel_product(const Matrix<const T>& a, const T* panel, T* out, int64_t ldo, bool accumulate) {
  int64_t m = 0;
  const auto rows = [&](auto count) {
    constexpr int kRows = decltype(count)::value;
    tile<kRows, V>(a.rows, a.data + m * a.col_stride, a.row_stride, a.col_stride, panel, out + m * ldo, ldo,
                   accumulate);
    m += kRows;
  };
  while (m + 8 <= a.cols) rows(std::integral_constant<int, 8>{});
  if (m + 4 <= a.cols) rows(std::integral_constant<int, 4>{});
  if (m + 2 <= a.cols) rows(std::integral_constant<int, 2>{});
  if (m < a.cols) rows(std::integral_constant<int, 1>{});
}

template <typename T>
DC_INLINE void product_inline(const Matrix<const T>& a, const Panels<T>& b, int64_t n, T* out, int64_t ldo,
                              bool accumulate) {
  // Depth pieces of 128 keep a panel's piece (24 KB) in the first-level cache while all rows of A pass over it.
  constexpr int64_t kDepth = 128;
  for (int64_t col = 0; col < n; col += Panels<T>::kPanel) {
    const int64_t width = b.width(col);
    for (int64_t k = 0; k < a.rows || k == 0; k += kDepth) {
      Matrix<const T> piece = a;
      piece.data += k * a.row_stride;
      piece.rows = std::min<int64_t>(kDepth, a.rows - k);
      const T* panel = b.data + col * b.depth + k * width;
      const bool add = accumulate || k > 0;
      switch (width / kLanes<T>) {
        case 1: panel_product<1>(piece, panel, out + col, ldo, add); break;
        case 2: panel_product<2>(piece, panel, out + col, ldo, add); break;
        default: panel_product<3>(piece, panel, out + col, ldo, add); break;
      }
    }
  }
}

}  // namespace

DC_CLONES void lay_out(const Matrix<const float>& b, Panels<float>& panels) { lay_out_inline(b, panels); }
DC_CLONES void lay_out(const Matrix<const double>& b, Panels<double>& panels) { lay_out_inline(b, panels); }

DC_CLONES void product(const Matrix<const float>& a, const Panels<float>& b, int64_t n, float* out, int64_t ldo,
                       bool accumulate) {
  product_inline(a, b, n, out, ldo, accumulate);
}
DC_CLONES void product(const Matrix<const double>& a, const Panels<double>& b, int64_t n, double* out, int64_t ldo,
                       bool accumulate) {
  product_inline(a, b, n, out, ldo, accumulate);
}

}  // namespace deepclust::cpu
