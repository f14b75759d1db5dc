// gemm_tile at twice the speed, by tiles up to six times, and 8 bits of precision, for filters that allow for its
// error.
//
// Rows are rounded to bfloat16 and laid out in Panels<float> of half the depth: a float's place holds two steps of
// the depth. One instruction multiplies both and adds them in float32, so a tile takes half the steps of gemm_tile.
#pragma once

#include "amx.h"
#include "gemm_tile.h"

namespace deepclust::cpu {

// Whether this processor has the instruction, and multiplies rows of this depth faster by it than as float. By tiles it
// does from a step of them on (on an Emerald Rapids 375 GFLOP/s beside 160 at 32 dimensions, 1000 beside 165 at 128);
// in registers AMD's do, while Intel's take twice as long as float (89 GFLOP/s). DEEPCLUST_NO_BF16 in the environment
// answers no.
bool bf16_pays(int64_t depth, bool tiles);

// Filled up with zeros to whole tiles of AMX.
inline int64_t bf16_depth(int64_t depth, bool tiles) {
  return tiles ? round_up(depth, 32) / 2 : (depth + 1) / 2;
}

// Rounds the panel of `rows` that begins at row `first` into `out`, whose depth is bf16_depth(rows.depth, ..).
// squared_errors[r] = |row r - its rounded self|^2.
void round_panel_bf16(const Panels<float>& rows, int64_t first, const Panels<float>& out, int64_t out_first,
                      double* squared_errors);

// As gemm_tile, of rounded rows. Products are exact; a sum is one chain in the order of k, by tiles two chains of each
// 32 entries that are added to it, and takes subnormal numbers for 0.
void gemm_tile_bf16(const Panels<float>& a, int64_t a_first, int64_t m, const Panels<float>& b, int64_t b_first,
                    int64_t n, bool tiles, float* out, int64_t ldo);

}  // namespace deepclust::cpu
