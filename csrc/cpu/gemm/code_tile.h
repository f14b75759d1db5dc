// The register tile of every product of codes: eight rows by up to three vectors of columns, exact in int32.
//
// A place of 32 bits holds two codes of 16 bits or four of 8, and one instruction multiplies all places of a register
// and adds them up: vpmaddwd two codes, twice the multiply-adds of float at the price of an addition more, which other
// ports take; vpdpbusd four, where the processor has AVX-512 VNNI or AVX-VNNI. Nothing saturates.
//
// 24 accumulators in registers of 64 bytes, 8 x 3: 11 loads for 24 instructions. In shorter ones 4 x 2, with two of B,
// one of A and one of products.
#pragma once

#include <cstdint>

#include "tile.h"

namespace deepclust::cpu {

// What the 32 bits of a place are: two codes of 16 bits, or four of 8, those of B unsigned. B may lie there signed, 128
// less than what is multiplied.
enum class Place { two, four, four_signed };

// Entries of a coded row at most: 255 * 127 * depth stays below 2^31, and codes/row_codes.h bounds norms of so many.
inline constexpr int64_t kMostCodedDepth = 1 << 16;

inline constexpr int64_t kTileRows = 8;
inline constexpr int64_t kTileCols = 48;  // of a full panel

// Steps of the depth, of a place each, that are multiplied in one piece. In registers of 32 bytes a panel of B takes 12
// KB of the first-level cache then, a panel of A as much; deeper rows in one piece evict each other: a graph of 4,000 x
// 768 took 28 % longer on a Zen 3. In registers of 64 bytes all of the depth is one piece.
inline int64_t piece_steps() {
  return simd_level() == Level::avx512 ? int64_t{1} << 20 : 64;
}

struct CodePiece {
  Strip<int32_t> rows;                                     // eight of A
  const int32_t* panel;                                    // of B, [steps][width]
  int64_t width, cols;                                     // cols in whole vectors, at most kTileCols
  int32_t* sums = nullptr;                                 // [kTileRows][kTileCols], where there is more than one piece
  bool first = true, last = true;                          // of the depth
  const int32_t* row_shift;                                // what B's code of 0 adds to a row's products of 8-bit codes
  const float *row_scale = nullptr, *col_scale = nullptr;  // null: 1 (Place::two)
  float* out;                                              // [kTileRows][cols], rows ldo apart
  int64_t ldo;
};

// Adds the products to piece.sums, or, of the last piece, writes out = (sums - row_shift) row_scale col_scale: of
// `four` without scales, of `four_signed` with them and rows a place apart, of `two` with or without, and without
// shifts. Call it for four where have_int8_tile(), for two where have_int16_tile().
template <Place P>
void multiply_codes(const CodePiece& piece);

}  // namespace deepclust::cpu
