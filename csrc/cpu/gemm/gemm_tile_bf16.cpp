#include "gemm_tile_bf16.h"

#include <cstdlib>
#include <type_traits>

#include "gemm_tile_amx.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 11
#define DC_BF16 __attribute__((target("avx512f,avx512bf16")))
#include <immintrin.h>
#endif

namespace deepclust::cpu {
namespace {

// To the nearest, ties to even, in bits: the upper half of a float is a bfloat16.
DC_INLINE uint32_t rounded_bits(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  return (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
}
DC_INLINE float from_bits(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

#if defined(DC_BF16)
// As in gemm_tile: eight rows of A broadcast against V vectors of B, 24 accumulators.
template <int V>
DC_BF16 DC_INLINE void register_tile(const float* a, int64_t a_width, const float* b, int64_t b_width, int64_t depth,
                                     bool accumulate, float* out, int64_t ldo) {
  __m512 sum[kStripRows][V];
  for (int m = 0; m < kStripRows; ++m)
    for (int v = 0; v < V; ++v) sum[m][v] = accumulate ? _mm512_loadu_ps(out + m * ldo + v * 16) : _mm512_setzero_ps();
  for (int64_t k = 0; k < depth; ++k, a += a_width, b += b_width) {
    __m512 panel[V];
    for (int v = 0; v < V; ++v) panel[v] = _mm512_loadu_ps(b + v * 16);
    for (int m = 0; m < kStripRows; ++m)
      for (int v = 0; v < V; ++v)
        sum[m][v] = _mm512_dpbf16_ps(sum[m][v], reinterpret_cast<__m512bh>(_mm512_set1_ps(a[m])),
                                     reinterpret_cast<__m512bh>(panel[v]));
  }
  for (int m = 0; m < kStripRows; ++m)
    for (int v = 0; v < V; ++v) _mm512_storeu_ps(out + m * ldo + v * 16, sum[m][v]);
}

template <int V>
DC_BF16 void panel_product(const Panels<float>& a, int64_t a_first, int64_t m, int64_t k, const float* panel,
                           int64_t b_width, int64_t depth, float* out, int64_t ldo) {
  for (int64_t row = 0; row < m; row += kStripRows) {
    const int64_t width = a.width(a_first + row);
    register_tile<V>(a.at(a_first + row) + k * width, width, panel, b_width, depth, k > 0, out + row * ldo, ldo);
  }
}
#endif

#if defined(DC_AMX)
DC_AMX void gemm_tile_by_amx(const Panels<float>& a, int64_t a_first, int64_t m, const Panels<float>& b,
                             int64_t b_first, int64_t n, float* out, int64_t ldo) {
  amx_product<float>(
      a, a_first, m, b, b_first, n,
      [&](const float* sums, int64_t row, int64_t rows, int64_t col, int64_t cols) DC_AMX DC_INLINE_LAMBDA {
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t c = 0; c < cols; c += 16)
            _mm512_storeu_ps(out + (row + r) * ldo + col + c, _mm512_load_ps(sums + r * kAmxCols + c));
      });
}
#endif

struct RoundPanel {
  template <typename L>
  static DC_INLINE void run(const Panels<float>& rows, int64_t first, const Panels<float>& out, int64_t out_first,
                            double* squared_errors) {
    constexpr int64_t kPanel = Panels<float>::kPanel;
    const int64_t width = out.width(out_first), from_width = rows.width(first);
    const float* __restrict__ from = rows.at(first);
    uint32_t* __restrict__ to = reinterpret_cast<uint32_t*>(out.at(out_first));
    double errors[kPanel] = {};
    for (int64_t k = 0; k < rows.depth; ++k, from += from_width)
      for (int64_t r = 0; r < width; ++r) {
        const uint32_t bits = rounded_bits(from[r]);
        const double error = static_cast<double>(from[r]) - static_cast<double>(from_bits(bits));
        errors[r] += error * error;
        uint32_t& pair = to[k / 2 * width + r];
        pair = k % 2 == 0 ? bits >> 16 : pair | bits;
      }
    std::fill(to + (rows.depth + 1) / 2 * width, to + out.depth * width, 0u);
    for (int64_t r = 0; r < width; ++r) squared_errors[r] = errors[r];
  }
};

#if defined(DC_BF16)
bool ask_processor() {
  return simd_level() == Level::avx512 && __builtin_cpu_supports("avx512bf16") &&
         std::getenv("DEEPCLUST_NO_BF16") == nullptr;
}
#endif

}  // namespace

bool bf16_pays([[maybe_unused]] int64_t depth, [[maybe_unused]] bool tiles) {
#if defined(DC_BF16)
  constexpr int64_t kLeastOfTiles = 32;
  static const bool have = ask_processor(), in_registers = __builtin_cpu_is("amd");
  return have && (tiles ? depth >= kLeastOfTiles : in_registers);
#else
  return false;
#endif
}

void round_panel_bf16(const Panels<float>& rows, int64_t first, const Panels<float>& out, int64_t out_first,
                      double* squared_errors) {
  dispatch<RoundPanel>(rows, first, out, out_first, squared_errors);
}

void gemm_tile_bf16([[maybe_unused]] const Panels<float>& a, [[maybe_unused]] int64_t a_first,
                    [[maybe_unused]] int64_t m, [[maybe_unused]] const Panels<float>& b,
                    [[maybe_unused]] int64_t b_first, [[maybe_unused]] int64_t n, [[maybe_unused]] bool tiles,
                    [[maybe_unused]] float* out, [[maybe_unused]] int64_t ldo) {
#if defined(DC_AMX)
  if (tiles) return gemm_tile_by_amx(a, a_first, m, b, b_first, n, out, ldo);
#endif
#if defined(DC_BF16)
  constexpr int64_t kPanel = Panels<float>::kPanel, kMostDepth = 160;  // a panel of it fits the first-level cache
  const int64_t pieces = std::max<int64_t>(1, ceil_div(a.depth, kMostDepth));
  const int64_t piece = ceil_div(a.depth, pieces);
  for (int64_t k = 0; k < a.depth; k += piece) {
    const int64_t depth = std::min(piece, a.depth - k);
    for (int64_t col = 0; col < n; col += kPanel) {
      const int64_t width = b.width(b_first + col);
      const float* panel = b.at(b_first + col) + k * width;
      switch (round_up(std::min(kPanel, n - col), kLanes<float>) / kLanes<float>) {
        case 1: panel_product<1>(a, a_first, m, k, panel, width, depth, out + col, ldo); break;
        case 2: panel_product<2>(a, a_first, m, k, panel, width, depth, out + col, ldo); break;
        default: panel_product<3>(a, a_first, m, k, panel, width, depth, out + col, ldo); break;
      }
    }
  }
#endif
}

}  // namespace deepclust::cpu
