// Products of 8-bit codes: dots[m, n] = sum_k a(m, k) b(n, k), a signed, b unsigned, exact in int32.
//
// One VNNI instruction does 64 multiply-adds where a float one does 16, on a quarter of the memory. b is laid out in
// panels of up to three vectors: [depth / 4][columns][4], so that a vector holds four steps of 16 columns; a is
// broadcast four bytes at a time from where it lies. A tile of 8 x 3 vectors keeps 24 accumulators in registers: 11
// loads for 24 instructions.
#pragma once

#include <cstdint>

namespace deepclust::cpu {

inline constexpr int64_t kTileRows = 8;
inline constexpr int64_t kTileCols = 48;        // columns of a full panel
inline constexpr int64_t kTileDepth = 1 << 16;  // 127 * 255 * depth must stay below 2^31
inline constexpr int64_t kCodeZero = 128;       // b's code of 0

// out [kTileRows][kTileCols] = float(dots - shift[row]) for `rows` rows of a, `depth` bytes each and `depth` apart
// (depth a multiple of 4), and `cols` columns of a panel (a multiple of 16). Call it where have_vnni().
void int8_tile(const int8_t* a, int64_t rows, int64_t depth, const int32_t* shift, const uint8_t* panel, int64_t cols,
               float* out);

// The same by tiles, for up to 32 rows and b signed: out [32][kTileCols] = dots, of whole sixteens of rows; depth is a
// multiple of 64. Call it where have_amx(), while an AmxTiles lives.
void int8_amx_tile(const int8_t* a, int64_t rows, int64_t depth, const int8_t* panel, int64_t cols, int32_t* out);

}  // namespace deepclust::cpu
