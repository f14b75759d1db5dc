#include "int8_tile.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define DC_HAS_INT8_TILE 1
#endif

namespace deepclust::cpu {

#if defined(DC_HAS_INT8_TILE)

#define DC_VNNI __attribute__((target("avx512f,avx512bw,avx512vnni")))

namespace {

template <int V>
DC_VNNI inline void tile(const int8_t* a, int64_t rows, int64_t depth, const int32_t* shift, const uint8_t* panel,
                         float* out) {
  const int8_t* row[kTileRows];
  // Rows that are missing repeat the last one: a tile without a branch, whose extra results nobody reads.
  for (int64_t m = 0; m < kTileRows; ++m) row[m] = a + std::min(m, rows - 1) * depth;
  __m512i sum[kTileRows][V];
  for (int m = 0; m < kTileRows; ++m)
    for (int v = 0; v < V; ++v) sum[m][v] = _mm512_set1_epi32(-shift[std::min<int64_t>(m, rows - 1)]);
  for (int64_t k = 0; k < depth; k += 4, panel += V * 64) {
    __m512i b[V];
    for (int v = 0; v < V; ++v) b[v] = _mm512_loadu_si512(panel + v * 64);
    for (int m = 0; m < kTileRows; ++m) {
      int32_t four;
      std::memcpy(&four, row[m] + k, 4);
      const __m512i broadcast = _mm512_set1_epi32(four);
      for (int v = 0; v < V; ++v) sum[m][v] = _mm512_dpbusd_epi32(sum[m][v], b[v], broadcast);
    }
  }
  for (int m = 0; m < kTileRows; ++m)
    for (int v = 0; v < V; ++v)
      _mm512_storeu_ps(out + m * kTileCols + v * 16, __builtin_convertvector((__v16si)sum[m][v], __m512));
}

}  // namespace

bool int8_tile_available() {
  static const bool present =
      __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vnni");
  return present && std::getenv("DEEPCLUST_NO_INT8") == nullptr;
}

DC_VNNI void int8_tile(const int8_t* a, int64_t rows, int64_t depth, const int32_t* shift, const uint8_t* panel,
                       int64_t cols, float* out) {
  switch (cols) {
    case 16: tile<1>(a, rows, depth, shift, panel, out); break;
    case 32: tile<2>(a, rows, depth, shift, panel, out); break;
    default: tile<3>(a, rows, depth, shift, panel, out); break;
  }
}

#else

bool int8_tile_available() {
  return false;
}
void int8_tile(const int8_t*, int64_t, int64_t, const int32_t*, const uint8_t*, int64_t, float*) {}

#endif

}  // namespace deepclust::cpu
