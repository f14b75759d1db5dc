#include "int8_tile.h"

#include <algorithm>
#include <cstring>

#include "amx.h"

namespace deepclust::cpu {

#if defined(DC_VNNI)

namespace {

// Loops over rows are unrolled early: else the accumulators are an array in memory, and the tile takes twice as long.
template <int V>
DC_VNNI inline void tile(const int8_t* a, int64_t rows, int64_t depth, const int32_t* shift, const uint8_t* panel,
                         float* out) {
  const int8_t* row[kTileRows];
  __m512i sum[kTileRows][V];
#pragma GCC unroll 8
  for (int m = 0; m < kTileRows; ++m) {
    // Rows that are missing repeat the last one: a tile without a branch, whose extra results nobody reads.
    const int64_t at = std::min<int64_t>(m, rows - 1);
    row[m] = a + at * depth;
    for (int v = 0; v < V; ++v) sum[m][v] = _mm512_set1_epi32(-shift[at]);
  }
  for (int64_t k = 0; k < depth; k += 4, panel += V * 64) {
    __m512i b[V];
    for (int v = 0; v < V; ++v) b[v] = _mm512_loadu_si512(panel + v * 64);
#pragma GCC unroll 8
    for (int m = 0; m < kTileRows; ++m) {
      float four;  // codes: a float is what is broadcast from memory
      std::memcpy(&four, row[m] + k, 4);
      const __m512i broadcast = _mm512_castps_si512(_mm512_set1_ps(four));
      for (int v = 0; v < V; ++v) multiply_add(sum[m][v], b[v], broadcast);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < kTileRows; ++m)
    for (int v = 0; v < V; ++v)
      _mm512_storeu_ps(out + m * kTileCols + v * 16, __builtin_convertvector((__v16si)sum[m][v], __m512));
}

}  // namespace

DC_VNNI void int8_tile(const int8_t* a, int64_t rows, int64_t depth, const int32_t* shift, const uint8_t* panel,
                       int64_t cols, float* out) {
  switch (cols) {
    case 16: tile<1>(a, rows, depth, shift, panel, out); break;
    case 32: tile<2>(a, rows, depth, shift, panel, out); break;
    default: tile<3>(a, rows, depth, shift, panel, out); break;
  }
}

#else

void int8_tile(const int8_t*, int64_t, int64_t, const int32_t*, const uint8_t*, int64_t, float*) {}

#endif

#if defined(DC_AMX)

namespace {

template <int R>
DC_AMX void amx_tiles(const int8_t* a, int64_t depth, const int8_t* panel, int64_t cols, int32_t* out) {
  for (int64_t col = 0; col < cols; col += 32) {
    const AmxColumns both[2] = {{panel + 4 * col, 4 * cols}, {panel + 4 * col + kAmxBytes, 4 * cols}};
    if (cols - col > 16)
      amx_tile<R, 2>(a, depth, both, depth, out + col, kTileCols);
    else
      amx_tile<R, 1>(a, depth, both, depth, out + col, kTileCols);
  }
}

}  // namespace

void int8_amx_tile(const int8_t* a, int64_t rows, int64_t depth, const int8_t* panel, int64_t cols, int32_t* out) {
  if (rows > kAmxRows)
    amx_tiles<2>(a, depth, panel, cols, out);
  else
    amx_tiles<1>(a, depth, panel, cols, out);
}

#else

void int8_amx_tile(const int8_t*, int64_t, int64_t, const int8_t*, int64_t, int32_t*) {}

#endif

}  // namespace deepclust::cpu
