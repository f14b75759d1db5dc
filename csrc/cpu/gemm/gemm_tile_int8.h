// gemm_tile at four times the speed, by tiles of AMX up to twelve times, and 8 bits of precision, for filters that
// allow for its error.
//
// A row is its codes, whole numbers within 127 of 0, times a scale of its own. Codes are laid out in Panels<float>
// of a quarter of the depth: a float's place holds four steps of it. One VNNI instruction multiplies all four and adds
// them in int32, so nothing is rounded but what the scales do.
#pragma once

#include "amx.h"
#include "gemm_tile.h"

namespace deepclust::cpu {

inline constexpr int64_t kMostCodedDepth = 1 << 13;  // 255 * 127 * depth must stay below 2^31

// A row's codes are filled up with zeros to whole vectors, or to whole tiles of AMX.
inline int64_t int8_depth(int64_t depth, bool tiles) {
  return round_up(depth, tiles ? kAmxBytes : 16) / 4;
}

struct CodedRows {
  Panels<float> codes;   // of int8_depth(depth)
  const float* scale;    // [rows, up to whole panels]
  const int32_t* shift;  // [rows, up to whole panels]: 128 times the sum of a row's codes
};

// As gemm_tile: (scale_i scale_j) times the product of the codes, which is exact in int32. Call it where have_vnni(),
// and by tiles where have_amx().
void gemm_tile_int8(const CodedRows& a, int64_t a_first, int64_t m, const CodedRows& b, int64_t b_first, int64_t n,
                    bool tiles, float* out, int64_t ldo);

}  // namespace deepclust::cpu
