#include "gemm_tile.h"

#include <type_traits>

namespace deepclust::cpu {
namespace {

// A panel of this depth, and the strip that meets it, fit the first-level cache.
constexpr int64_t kDepthBytes = 640;

// A register's worth of T: half of VectorOf's where registers are half as wide, for g++ spills whole ones there. It is
// read and written anywhere through a packed struct: g++ 12 sends a memcpy of 32 bytes through the stack.
template <typename T, int64_t kBytes>
struct Register {
  typedef T type __attribute__((vector_size(kBytes), may_alias));
  struct __attribute__((packed, may_alias)) Anywhere {
    type vector;
  };
  static constexpr int64_t kLanes = kBytes / sizeof(T);
};

template <typename T>
DC_INLINE void pack_rows_inline(const Matrix<const T>& x, const T* shift, const PackedRows<T>& packed, int64_t first) {
  constexpr int64_t kPanel = PackedRows<T>::kPanel;
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

// M rows by V registers of out, over `depth` steps from the two panels on.
template <int M, int V, int64_t kBytes, typename T>
DC_INLINE void register_tile(const T* __restrict__ a, int64_t a_width, const T* __restrict__ b, int64_t b_width,
                             int64_t depth, bool accumulate, T* __restrict__ out, int64_t ldo) {
  using R = typename Register<T, kBytes>::type;
  using Anywhere = typename Register<T, kBytes>::Anywhere;
  constexpr int64_t kStep = Register<T, kBytes>::kLanes;
  R sum[M][V];
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < V; ++v) {
      sum[m][v] = R{};
      if (accumulate) sum[m][v] = reinterpret_cast<const Anywhere*>(out + m * ldo + v * kStep)->vector;
    }
  for (int64_t k = 0; k < depth; ++k, a += a_width, b += b_width) {
    R panel[V];
    for (int v = 0; v < V; ++v) panel[v] = reinterpret_cast<const Anywhere*>(b + v * kStep)->vector;
    for (int m = 0; m < M; ++m)
      for (int v = 0; v < V; ++v) sum[m][v] += panel[v] * a[m];
  }
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < V; ++v) reinterpret_cast<Anywhere*>(out + m * ldo + v * kStep)->vector = sum[m][v];
}

// A strip of eight rows by V vectors, in register tiles.
template <bool kWide, int V, typename T>
DC_INLINE void strip(const T* a, int64_t a_width, const T* b, int64_t b_width, int64_t depth, bool accumulate, T* out,
                     int64_t ldo) {
  if constexpr (kWide) {
    register_tile<8, V, 64>(a, a_width, b, b_width, depth, accumulate, out, ldo);
  } else {
    for (int64_t v = 0; v < V * kLanes<T>; v += kLanes<T>)
      for (int64_t m = 0; m < kStripRows; m += 4)
        register_tile<4, 2, 32>(a + m, a_width, b + v, b_width, depth, accumulate, out + m * ldo + v, ldo);
  }
}

template <bool kWide, typename T>
DC_INLINE void gemm_tile_inline(const PackedRows<T>& a, int64_t a_first, int64_t m, const PackedRows<T>& b,
                                int64_t b_first, int64_t n, T* out, int64_t ldo) {
  constexpr int64_t kPanel = PackedRows<T>::kPanel;
  const int64_t pieces = std::max<int64_t>(1, (a.depth * int64_t{sizeof(T)} + kDepthBytes - 1) / kDepthBytes);
  const int64_t piece = (a.depth + pieces - 1) / pieces;
  for (int64_t k = 0; k < a.depth || k == 0; k += piece) {
    const int64_t depth = std::min(piece, a.depth - k);
    for (int64_t col = 0; col < n; col += kPanel) {
      const int64_t b_width = b.width(b_first + col);
      const T* panel = b.at(b_first + col) + k * b_width;
      const auto rows = [&](auto vectors) DC_INLINE_LAMBDA {
        for (int64_t row = 0; row < m; row += kStripRows) {
          const int64_t a_width = a.width(a_first + row);
          strip<kWide, decltype(vectors)::value>(a.at(a_first + row) + k * a_width, a_width, panel, b_width, depth,
                                                 k > 0, out + row * ldo + col, ldo);
        }
      };
      switch (round_up(std::min(kPanel, n - col), kLanes<T>) / kLanes<T>) {
        case 1: rows(std::integral_constant<int, 1>{}); break;
        case 2: rows(std::integral_constant<int, 2>{}); break;
        default: rows(std::integral_constant<int, 3>{}); break;
      }
    }
  }
}

// 32 registers of 64 bytes, or something smaller.
bool have_wide_registers() {
#if defined(__x86_64__) && defined(__GNUC__)
  return __builtin_cpu_supports("avx512f") != 0;
#else
  return false;
#endif
}
const bool kWideRegisters = have_wide_registers();

#define DC_GEMM_TILE(T)                                                                                  \
  DC_CLONES void gemm_wide(const PackedRows<T>& a, int64_t a_first, int64_t m, const PackedRows<T>& b,   \
                           int64_t b_first, int64_t n, T* out, int64_t ldo) {                            \
    gemm_tile_inline<true>(a, a_first, m, b, b_first, n, out, ldo);                                      \
  }                                                                                                      \
  DC_CLONES void gemm_narrow(const PackedRows<T>& a, int64_t a_first, int64_t m, const PackedRows<T>& b, \
                             int64_t b_first, int64_t n, T* out, int64_t ldo) {                          \
    gemm_tile_inline<false>(a, a_first, m, b, b_first, n, out, ldo);                                     \
  }
DC_GEMM_TILE(float)
DC_GEMM_TILE(double)
#undef DC_GEMM_TILE

}  // namespace

DC_CLONES void pack_rows(const Matrix<const float>& x, const float* shift, const PackedRows<float>& packed,
                         int64_t first) {
  pack_rows_inline(x, shift, packed, first);
}
DC_CLONES void pack_rows(const Matrix<const double>& x, const double* shift, const PackedRows<double>& packed,
                         int64_t first) {
  pack_rows_inline(x, shift, packed, first);
}
void gemm_tile(const PackedRows<float>& a, int64_t a_first, int64_t m, const PackedRows<float>& b, int64_t b_first,
               int64_t n, float* out, int64_t ldo) {
  if (kWideRegisters)
    gemm_wide(a, a_first, m, b, b_first, n, out, ldo);
  else
    gemm_narrow(a, a_first, m, b, b_first, n, out, ldo);
}
void gemm_tile(const PackedRows<double>& a, int64_t a_first, int64_t m, const PackedRows<double>& b, int64_t b_first,
               int64_t n, double* out, int64_t ldo) {
  if (kWideRegisters)
    gemm_wide(a, a_first, m, b, b_first, n, out, ldo);
  else
    gemm_narrow(a, a_first, m, b, b_first, n, out, ldo);
}

}  // namespace deepclust::cpu
