#include "product.h"

#include "tile.h"

namespace deepclust::cpu {
namespace {

struct LayOut {
  template <typename L, typename T>
  static DC_INLINE void run(const Matrix<const T>& b, const Panels<T>& panels, int64_t first) {
    using R = Register<L, T>;
    // A whole vector may be read where it stays between the matrix's first and last element.
    const int64_t last = (b.rows - 1) * b.row_stride + b.cols;
    const bool rows_are_dense = b.col_stride == 1 && b.row_stride >= b.cols;
    for (int64_t col = 0; col < b.cols; col += kLanes<T>) {
      const int64_t filled = std::min(kLanes<T>, b.cols - col);
      const int64_t width = panels.width(first + col);
      T* __restrict__ out = panels.at(first + col);
      const T* __restrict__ row = b.data + col * b.col_stride;
      int64_t k = 0;
      if (rows_are_dense) {
        typename VectorOf<T>::type lane;
        for (int64_t i = 0; i < kLanes<T>; ++i) lane[i] = static_cast<T>(i < filled ? 1 : 0);
        typename R::type keep[R::kParts];
        for (int p = 0; p < R::kParts; ++p) keep[p] = load<L, T>(reinterpret_cast<const T*>(&lane) + p * R::kLanes);
        for (; k < b.rows && k * b.row_stride + col + kLanes<T> <= last; ++k, out += width, row += b.row_stride)
          for (int p = 0; p < R::kParts; ++p) {
            const typename R::type vector = load<L, T>(row + p * R::kLanes);
            store<L, T>(out + p * R::kLanes, keep[p] > T(0) ? vector : typename R::type{});
          }
      }
      for (; k < b.rows; ++k, out += width, row += b.row_stride)
        for (int64_t i = 0; i < kLanes<T>; ++i) out[i] = i < filled ? row[i * b.col_stride] : T(0);
    }
  }
};

// M rows of out against the columns [begin, end), panel by panel, from depth k on.
template <typename L, int M, typename T>
DC_INLINE void strip_product(const Strip<T>& strip, const Panels<T>& b, int64_t k, int64_t begin, int64_t end, T* out,
                             int64_t ldo, bool accumulate) {
  for (int64_t col = begin; col < end;) {
    const int64_t width = b.width(col), stop = std::min(end, b.stop(col));
    const T* panel = b.at(col) + k * width;
    with_vectors<T>(stop - col, [&](auto vectors) DC_INLINE_LAMBDA {
      vector_tile<L, M, decltype(vectors)::value>(strip, panel, width, accumulate, out + col - begin, ldo);
    });
    col = stop;
  }
}

struct Product {
  template <typename L, typename T>
  static DC_INLINE void run(const Matrix<const T>& a, const Panels<T>& b, int64_t begin, int64_t end, T* out,
                            int64_t ldo, bool accumulate) {
    // A piece of 8 x 128 of A passes over all panels; where its rows lie far apart it is copied first, so that a step
    // does not touch a page of its own.
    constexpr int64_t kDepth = 128;
    const bool copy = a.col_stride == 1 && end - begin > Panels<T>::kPanel && a.row_stride > 64;
    alignas(64) T copied[kDepth * 8];
    for (int64_t k = 0; k < a.rows || k == 0; k += kDepth) {
      const int64_t depth = std::min(kDepth, a.rows - k);
      const bool add = accumulate || k > 0;
      int64_t m = 0;
      const auto rows = [&](auto count) DC_INLINE_LAMBDA {
        constexpr int kRows = decltype(count)::value;
        Strip<T> strip{a.data + k * a.row_stride + m * a.col_stride, depth, a.row_stride, a.col_stride};
        if (copy) {
          for (int64_t i = 0; i < depth; ++i)
            for (int j = 0; j < kRows; ++j) copied[i * kRows + j] = strip.data[i * a.row_stride + j];
          strip = {copied, depth, kRows, 1};
        }
        strip_product<L, kRows>(strip, b, k, begin, end, out + m * ldo, ldo, add);
        m += kRows;
      };
      while (m + 8 <= a.cols) rows(std::integral_constant<int, 8>{});
      if (m + 4 <= a.cols) rows(std::integral_constant<int, 4>{});
      if (m + 2 <= a.cols) rows(std::integral_constant<int, 2>{});
      if (m < a.cols) rows(std::integral_constant<int, 1>{});
    }
  }
};

}  // namespace

template <typename T>
void lay_out(const Matrix<const T>& b, const Panels<T>& panels, int64_t first) {
  dispatch<LayOut>(b, panels, first);
}
template <typename T>
void product(const Matrix<const T>& a, const Panels<T>& b, int64_t begin, int64_t end, T* out, int64_t ldo,
             bool accumulate) {
  dispatch<Product>(a, b, begin, end, out, ldo, accumulate);
}

template void lay_out(const Matrix<const float>&, const Panels<float>&, int64_t);
template void lay_out(const Matrix<const double>&, const Panels<double>&, int64_t);
template void product(const Matrix<const float>&, const Panels<float>&, int64_t, int64_t, float*, int64_t, bool);
template void product(const Matrix<const double>&, const Panels<double>&, int64_t, int64_t, double*, int64_t, bool);

}  // namespace deepclust::cpu
