#include "product_kernel.h"

#include <type_traits>

namespace deepclust::cpu {
namespace {

template <typename T>
using Vec = typename VectorOf<T>::type;

// Anywhere in memory: a vector type dereferenced through a template may be taken for aligned.
template <typename T>
DC_INLINE void load(const T* from, Vec<T>& vector) {
  __builtin_memcpy(&vector, from, sizeof(Vec<T>));
}
template <typename T>
DC_INLINE void store(T* to, const Vec<T>& vector) {
  __builtin_memcpy(to, &vector, sizeof(Vec<T>));
}

template <typename T>
DC_INLINE void lay_out_inline(const Matrix<const T>& b, const Panels<T>& panels, int64_t first) {
  // A whole vector may be read where it stays between the matrix's first and last element.
  const int64_t last = (b.rows - 1) * b.row_stride + b.cols;
  const bool rows_are_dense = b.col_stride == 1 && b.row_stride >= b.cols;
  for (int64_t col = 0; col < b.cols; col += kLanes<T>) {
    const int64_t filled = std::min(kLanes<T>, b.cols - col);
    typename VectorOf<T>::mask keep;
    for (int64_t i = 0; i < kLanes<T>; ++i) keep[i] = i < filled ? -1 : 0;
    const int64_t width = panels.step(first + col);
    T* __restrict__ out = panels.at(first + col);
    const T* __restrict__ row = b.data + col * b.col_stride;
    int64_t k = 0;
    if (rows_are_dense)
      for (; k < b.rows && k * b.row_stride + col + kLanes<T> <= last; ++k, out += width, row += b.row_stride) {
        Vec<T> vector;
        load(row, vector);
        store(out, keep ? vector : Vec<T>{});
      }
    for (; k < b.rows; ++k, out += width, row += b.row_stride)
      for (int64_t i = 0; i < kLanes<T>; ++i) out[i] = i < filled ? row[i * b.col_stride] : T(0);
  }
}

// One operand of a tile: `depth` steps of A, `depth_stride` apart, whose rows are `row_stride` apart.
template <typename T>
struct Strip {
  const T* data;
  int64_t depth, depth_stride, row_stride;
};

// M rows by V vectors of out; panel [depth][width].
template <int M, int V, typename T>
DC_INLINE void tile(Strip<T> strip, const T* __restrict__ panel, int64_t width, T* __restrict__ out, int64_t ldo,
                    bool accumulate) {
  const T* __restrict__ a = strip.data;
  Vec<T> sum[M][V];
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < V; ++v) {
      sum[m][v] = Vec<T>{};
      if (accumulate) load(out + m * ldo + v * kLanes<T>, sum[m][v]);
    }
  for (int64_t k = 0; k < strip.depth; ++k, a += strip.depth_stride, panel += width) {
    Vec<T> b[V];
    for (int v = 0; v < V; ++v) load(panel + v * kLanes<T>, b[v]);
    for (int m = 0; m < M; ++m)
      for (int v = 0; v < V; ++v) sum[m][v] += b[v] * a[m * strip.row_stride];
  }
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < V; ++v) store(out + m * ldo + v * kLanes<T>, sum[m][v]);
}

// M rows of out against the columns [begin, end), panel by panel, from depth k on.
template <int M, typename T>
DC_INLINE void strip_product(const Strip<T>& strip, const Panels<T>& b, int64_t k, int64_t begin, int64_t end, T* out,
                             int64_t ldo, bool accumulate) {
  for (int64_t col = begin; col < end;) {
    const int64_t width = b.step(col), stop = std::min(end, b.stop(col));
    const T* panel = b.at(col) + k * width;
    switch (round_up(stop - col, kLanes<T>) / kLanes<T>) {
      case 1: tile<M, 1>(strip, panel, width, out + col - begin, ldo, accumulate); break;
      case 2: tile<M, 2>(strip, panel, width, out + col - begin, ldo, accumulate); break;
      default: tile<M, 3>(strip, panel, width, out + col - begin, ldo, accumulate); break;
    }
    col = stop;
  }
}

template <typename T>
DC_INLINE void product_inline(const Matrix<const T>& a, const Panels<T>& b, int64_t begin, int64_t end, T* out,
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
      strip_product<kRows>(strip, b, k, begin, end, out + m * ldo, ldo, add);
      m += kRows;
    };
    while (m + 8 <= a.cols) rows(std::integral_constant<int, 8>{});
    if (m + 4 <= a.cols) rows(std::integral_constant<int, 4>{});
    if (m + 2 <= a.cols) rows(std::integral_constant<int, 2>{});
    if (m < a.cols) rows(std::integral_constant<int, 1>{});
  }
}

}  // namespace

DC_CLONES void lay_out(const Matrix<const float>& b, const Panels<float>& panels, int64_t first) {
  lay_out_inline(b, panels, first);
}
DC_CLONES void lay_out(const Matrix<const double>& b, const Panels<double>& panels, int64_t first) {
  lay_out_inline(b, panels, first);
}
DC_CLONES void product(const Matrix<const float>& a, const Panels<float>& b, int64_t begin, int64_t end, float* out,
                       int64_t ldo, bool accumulate) {
  product_inline(a, b, begin, end, out, ldo, accumulate);
}
DC_CLONES void product(const Matrix<const double>& a, const Panels<double>& b, int64_t begin, int64_t end, double* out,
                       int64_t ldo, bool accumulate) {
  product_inline(a, b, begin, end, out, ldo, accumulate);
}

}  // namespace deepclust::cpu
