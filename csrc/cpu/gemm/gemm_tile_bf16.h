// gemm_tile at twice the speed and 8 bits of precision, for filters that allow for its error.
//
// Rows are rounded to bfloat16 and laid out in PackedRows<float> of half the depth: a float's place holds two steps of
// the depth. One instruction multiplies both and adds them in float32, so a tile takes half the steps of gemm_tile.
#pragma once

#include "amx.h"
#include "gemm_tile.h"

namespace deepclust::cpu {

// Whether this processor has the instruction. DEEPCLUST_NO_BF16 in the environment answers no.
bool have_gemm_tile_bf16();

// Filled up with zeros to whole tiles where these are taken: a narrower row would leave half of each empty.
inline int64_t bf16_depth(int64_t depth) {
  return have_amx() && depth >= 32 ? round_up(depth, 32) / 2 : (depth + 1) / 2;
}

// Rounds the panel of `rows` that begins at row `first` into `out`, whose depth is bf16_depth(rows.depth).
// squared_errors[r] = |row r - its rounded self|^2.
void round_panel_bf16(const PackedRows<float>& rows, int64_t first, const PackedRows<float>& out, int64_t out_first,
                      double* squared_errors);

// As gemm_tile, of rounded rows. Products are exact; a sum is one chain in the order of k, and takes subnormal
// numbers for 0.
void gemm_tile_bf16(const PackedRows<float>& a, int64_t a_first, int64_t m, const PackedRows<float>& b, int64_t b_first,
                    int64_t n, float* out, int64_t ldo);

}  // namespace deepclust::cpu
