// Products of 16-bit codes where there is no instruction for 8-bit ones: twice the multiply-adds of float. And of 8-bit
// codes where there is one for registers of 32 bytes (AVX-VNNI): four times, in the same tiles.
//
// vpmaddwd multiplies 16 pairs of 16-bit numbers in a 32-byte register and adds neighbours: 16 multiply-adds where a
// float instruction does 8, at the price of an addition more, which other ports take. Nothing saturates, and the codes
// may be as long as the sum of their products leaves room for in int32 (code_limit): 11 bits at 512 entries. So the
// filters let through what float would. maddubs on 8-bit codes issues as much for as many multiply-adds on a Zen and a
// quarter less on a Haswell, and is limited to 7 bits by its saturation.
//
// Measured on one core of a Zen 3: see csrc/README.md. Accumulators: 4 x 2 registers, with two of B, one of A and one
// of products.
#pragma once

#include <cstdint>

#include "gemm_tile_int8.h"

namespace deepclust::cpu {

// Whether this level has the instruction and none for 8 bits; DEEPCLUST_NO_INT8 in the environment answers no.
bool have_int16_tile();

// The largest code of rows of `depth` entries: limit^2 depth < 2^31.
int32_t code_limit(int64_t depth);

// Steps of the depth as Panels<float> counts them: a float's place holds two codes.
inline int64_t int16_depth(int64_t depth) {
  return round_up(depth, 16) / 2;
}

// out [8][48] = the products of eight rows of a, `depth` bytes each and as far apart, and `cols` columns of a panel
// [depth / 4][cols][2]; cols is a multiple of 16.
void int16_tile(const int8_t* a, int64_t depth, const uint8_t* panel, int64_t cols, float* out);

// As gemm_tile_int8; shifts are not needed.
void gemm_tile_int16(const CodedRows& a, int64_t a_first, int64_t m, const CodedRows& b, int64_t b_first, int64_t n,
                     float* out, int64_t ldo);

// int8_tile for eight rows, and gemm_tile_int8, in registers of 32 bytes: four codes a place in the time of two. Call
// them where have_avx_vnni().
void int8_tile_avx(const int8_t* a, int64_t depth, const int32_t* shift, const uint8_t* panel, int64_t cols,
                   float* out);
void gemm_tile_int8_avx(const CodedRows& a, int64_t a_first, int64_t m, const CodedRows& b, int64_t b_first, int64_t n,
                        float* out, int64_t ldo);

}  // namespace deepclust::cpu
