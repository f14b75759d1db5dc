#include "gemm_tile_int8.h"

#include "gemm_tile_amx.h"
#include "int16_tile.h"

namespace deepclust::cpu {

#if defined(DC_VNNI)
namespace {

// As in gemm_tile: eight rows of A broadcast against V vectors of B, 24 accumulators. The instruction wants one side
// unsigned: B's codes plus 128, which is a flipped bit; what that adds is a row's shift.
template <int V>
DC_VNNI DC_INLINE void register_tile(const float* a, int64_t a_width, const float* b, int64_t b_width, int64_t depth,
                                     const float* a_scale, const int32_t* a_shift, const float* b_scale, float* out,
                                     int64_t ldo) {
  const __m512i flip = _mm512_set1_epi8(-128);
  __m512i sum[kStripRows][V];
  for (int m = 0; m < kStripRows; ++m)
    for (int v = 0; v < V; ++v) sum[m][v] = _mm512_set1_epi32(-a_shift[m]);
  for (int64_t k = 0; k < depth; ++k, a += a_width, b += b_width) {
    __m512i panel[V];
    for (int v = 0; v < V; ++v) panel[v] = _mm512_xor_si512(_mm512_loadu_si512(b + v * 16), flip);
    for (int m = 0; m < kStripRows; ++m) {
      const __m512i row = _mm512_castps_si512(_mm512_set1_ps(a[m]));
      for (int v = 0; v < V; ++v) multiply_add(sum[m][v], panel[v], row);
    }
  }
  for (int v = 0; v < V; ++v) {
    const __m512 scale = _mm512_loadu_ps(b_scale + v * 16);
    for (int m = 0; m < kStripRows; ++m) {
      const __m512 product = __builtin_convertvector(reinterpret_cast<__v16si>(sum[m][v]), __m512);
      _mm512_storeu_ps(out + m * ldo + v * 16, product * (scale * a_scale[m]));
    }
  }
}

template <int V>
DC_VNNI void panel_product(const CodedRows& a, int64_t a_first, int64_t m, const float* panel, int64_t b_width,
                           const float* b_scale, float* out, int64_t ldo) {
  for (int64_t row = 0; row < m; row += kStripRows) {
    const int64_t i = a_first + row;
    register_tile<V>(a.codes.at(i), a.codes.width(i), panel, b_width, a.codes.depth, a.scale + i, a.shift + i, b_scale,
                     out + row * ldo, ldo);
  }
}

#if defined(DC_AMX)
DC_AMX void gemm_tile_by_amx(const CodedRows& a, int64_t a_first, int64_t m, const CodedRows& b, int64_t b_first,
                             int64_t n, float* out, int64_t ldo) {
  amx_product<int32_t>(
      a.codes, a_first, m, b.codes, b_first, n,
      [&](const int32_t* sums, int64_t row, int64_t rows, int64_t col, int64_t cols) DC_AMX DC_INLINE_LAMBDA {
        for (int64_t c = 0; c < cols; c += 16) {
          const __m512 scale = _mm512_loadu_ps(b.scale + b_first + col + c);
          for (int64_t r = 0; r < rows; ++r) {
            const auto sum = reinterpret_cast<__v16si>(_mm512_load_si512(sums + r * kAmxCols + c));
            _mm512_storeu_ps(out + (row + r) * ldo + col + c,
                             __builtin_convertvector(sum, __m512) * (scale * a.scale[a_first + row + r]));
          }
        }
      });
}
#endif

}  // namespace

void gemm_tile_int8(const CodedRows& a, int64_t a_first, int64_t m, const CodedRows& b, int64_t b_first, int64_t n,
                    [[maybe_unused]] bool tiles, float* out, int64_t ldo) {
#if defined(DC_AMX)
  if (tiles) return gemm_tile_by_amx(a, a_first, m, b, b_first, n, out, ldo);
#endif
  if (simd_level() != Level::avx512) return gemm_tile_int8_avx(a, a_first, m, b, b_first, n, out, ldo);
  constexpr int64_t kPanel = Panels<float>::kPanel;
  for (int64_t col = 0; col < n; col += kPanel) {
    const int64_t j = b_first + col, width = b.codes.width(j);
    const float *panel = b.codes.at(j), *scale = b.scale + j;
    switch (round_up(std::min(kPanel, n - col), kLanes<float>) / kLanes<float>) {
      case 1: panel_product<1>(a, a_first, m, panel, width, scale, out + col, ldo); break;
      case 2: panel_product<2>(a, a_first, m, panel, width, scale, out + col, ldo); break;
      default: panel_product<3>(a, a_first, m, panel, width, scale, out + col, ldo); break;
    }
  }
}

#else

void gemm_tile_int8(const CodedRows&, int64_t, int64_t, const CodedRows&, int64_t, int64_t, bool, float*, int64_t) {}

#endif

}  // namespace deepclust::cpu
