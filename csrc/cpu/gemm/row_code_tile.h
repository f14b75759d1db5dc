// Products of codes of rows that lie one after the other, by panels of codes: dots[m, n] = sum_k a(m, k) b(n, k), exact
// in int32. For k-means, whose points are coded once and whose centroids are coded anew in every iteration.
//
// b is laid out in panels of up to three vectors: [bytes / 4][columns][4 bytes], so that a vector holds a step of 16
// columns; a is broadcast four bytes at a time from where it lies.
#pragma once

#include <cstdint>

#include "code_tile.h"

namespace deepclust::cpu {

inline constexpr int64_t kCodeZero = 128;  // b's 8-bit code of 0, in int8_tile

// out [kTileRows][kTileCols] = float(dots - shift[row]) of eight rows of a, which are all read, `bytes` each and as far
// apart (a multiple of 4), signed, and `cols` columns of a panel (a multiple of 16), unsigned. Call it where
// have_int8_tile().
void int8_tile(const int8_t* a, int64_t bytes, const int32_t* shift, const uint8_t* panel, int64_t cols, float* out);

// The same of 16-bit codes, signed both, without a shift. Call it where have_int16_tile().
void int16_tile(const int8_t* a, int64_t bytes, const uint8_t* panel, int64_t cols, float* out);

// The same by tiles, for up to 32 rows and b signed: out [32][kTileCols] = dots, of whole sixteens of rows; bytes is a
// multiple of 64. Call it where have_amx(), while an AmxTiles lives.
void int8_amx_tile(const int8_t* a, int64_t rows, int64_t bytes, const int8_t* panel, int64_t cols, int32_t* out);

}  // namespace deepclust::cpu
