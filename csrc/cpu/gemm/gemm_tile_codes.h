// gemm_tile of codes, for filters that allow for their error: with 8 bits at four times its speed, by tiles of AMX up
// to twelve times; with 16 where there is no instruction for 8, at twice.
//
// A row is its codes, whole numbers, times a scale of its own. They are laid out in Panels<float> of a part of the
// depth: a float's place holds four codes of 8 bits or two of 16, so that nothing is rounded but what the scales do.
// 8-bit codes lie within 127 of 0. Those of 16 bits may be as long as the sum of their products leaves room for in
// int32 (code_limit), 11 bits at 512 entries, so that the filters let through what float would. maddubs on 8-bit codes
// issues as much for as many multiply-adds on a Zen and a quarter less on a Haswell, and is limited to 7 bits by its
// saturation.
//
// Measured figures: csrc/README.md.
#pragma once

#include "amx.h"
#include "code_tile.h"
#include "gemm_tile.h"

namespace deepclust::cpu {

// Steps of the depth as Panels<float> counts them: a row's codes are filled up with zeros to whole vectors, or to whole
// tiles of AMX.
inline int64_t int8_depth(int64_t depth, bool tiles) {
  return round_up(depth, tiles ? kAmxBytes : 16) / 4;
}
inline int64_t int16_depth(int64_t depth) {
  return round_up(depth, 16) / 2;
}

// The largest 16-bit code of rows of `depth` entries: limit^2 depth < 2^31.
int32_t code_limit(int64_t depth);

struct CodedRows {
  Panels<float> codes;   // of int8_depth(depth) or int16_depth(depth)
  const float* scale;    // [rows, up to whole panels]
  const int32_t* shift;  // [rows, up to whole panels]: 128 times the sum of a row's 8-bit codes
};

// As gemm_tile: (scale_i scale_j) times the product of the codes. Call the first where have_int8_tile(), by tiles where
// have_amx(), and the second where have_int16_tile().
void gemm_tile_int8(const CodedRows& a, int64_t a_first, int64_t m, const CodedRows& b, int64_t b_first, int64_t n,
                    bool tiles, float* out, int64_t ldo);
void gemm_tile_int16(const CodedRows& a, int64_t a_first, int64_t m, const CodedRows& b, int64_t b_first, int64_t n,
                     float* out, int64_t ldo);

}  // namespace deepclust::cpu
