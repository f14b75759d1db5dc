#include "gemm_tile.h"

#include "tile.h"

namespace deepclust::cpu {
namespace {

// A panel of this depth, and the strip that meets it, fit the first-level cache.
constexpr int64_t kDepthBytes = 640;

struct PackRows {
  template <typename L, typename T>
  static DC_INLINE void run(const Matrix<const T>& x, const T* shift, const Panels<T>& packed, int64_t first) {
    constexpr int64_t kPanel = Panels<T>::kPanel;
    // Eight depths at a time: a cache line of the panel is finished while it is near, and a row is read in pieces.
    constexpr int64_t kPiece = 8;
    for (int64_t row = 0; row < x.rows; row += kPanel) {
      const int64_t width = packed.width(first + row), filled = std::min(kPanel, x.rows - row);
      T* __restrict__ panel = packed.at(first + row);
      const T* __restrict__ source = x.data + row * x.row_stride;
      for (int64_t k = 0; k < x.cols; k += kPiece) {
        const int64_t piece = std::min(kPiece, x.cols - k);
        T* __restrict__ out = panel + k * width;
        for (int64_t r = 0; r < filled; ++r)
          for (int64_t i = 0; i < piece; ++i)
            out[i * width + r] =
                source[r * x.row_stride + (k + i) * x.col_stride] - (shift != nullptr ? shift[k + i] : 0);
        for (int64_t i = 0; i < piece; ++i)
          for (int64_t r = filled; r < width; ++r) out[i * width + r] = 0;
      }
    }
  }
};

struct GemmTile {
  template <typename L, typename T>
  static DC_INLINE void run(const Panels<T>& a, int64_t a_first, int64_t m, const Panels<T>& b, int64_t b_first,
                            int64_t n, T* out, int64_t ldo) {
    constexpr int64_t kPanel = Panels<T>::kPanel;
    const int64_t pieces = std::max<int64_t>(1, ceil_div(a.depth * int64_t{sizeof(T)}, kDepthBytes));
    const int64_t piece = ceil_div(a.depth, pieces);
    for (int64_t k = 0; k < a.depth || k == 0; k += piece) {
      const int64_t depth = std::min(piece, a.depth - k);
      for (int64_t col = 0; col < n; col += kPanel) {
        const int64_t b_width = b.width(b_first + col);
        const T* panel = b.at(b_first + col) + k * b_width;
        with_vectors<T>(std::min(kPanel, n - col), [&](auto vectors) DC_INLINE_LAMBDA {
          for (int64_t row = 0; row < m; row += kStripRows) {
            const int64_t a_width = a.width(a_first + row);
            vector_tile<L, kStripRows, decltype(vectors)::value>(
                Strip<T>{a.at(a_first + row) + k * a_width, depth, a_width, 1}, panel, b_width, k > 0,
                out + row * ldo + col, ldo);
          }
        });
      }
    }
  }
};

}  // namespace

template <typename T>
void pack_rows(const Matrix<const T>& x, const T* shift, const Panels<T>& packed, int64_t first) {
  dispatch<PackRows>(x, shift, packed, first);
}
template <typename T>
void gemm_tile(const Panels<T>& a, int64_t a_first, int64_t m, const Panels<T>& b, int64_t b_first, int64_t n, T* out,
               int64_t ldo) {
  dispatch<GemmTile>(a, a_first, m, b, b_first, n, out, ldo);
}

template void pack_rows(const Matrix<const float>&, const float*, const Panels<float>&, int64_t);
template void pack_rows(const Matrix<const double>&, const double*, const Panels<double>&, int64_t);
template void gemm_tile(const Panels<float>&, int64_t, int64_t, const Panels<float>&, int64_t, int64_t, float*,
                        int64_t);
template void gemm_tile(const Panels<double>&, int64_t, int64_t, const Panels<double>&, int64_t, int64_t, double*,
                        int64_t);

}  // namespace deepclust::cpu
