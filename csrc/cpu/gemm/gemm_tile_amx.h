// A tile of a product of packed rows by AMX: for gemm_tile_int8 and gemm_tile_bf16, whose panels are what it takes as
// B. As A it wants 64 bytes of a row side by side: 32 rows are laid out anew for all columns.
#pragma once

#include "../../common/buffer.h"
#include "amx.h"
#include "gemm_tile.h"

#if defined(DC_AMX)

namespace deepclust::cpu {

inline constexpr int64_t kAmxCols = 32;  // of a block of sums

// One of the two halves that a stage of a transposition makes of two registers: in every four lanes, units of `Unit` of
// them in turn from the one and the other.
typedef int32_t Lanes __attribute__((vector_size(64)));
typedef int32_t Half __attribute__((vector_size(32)));
template <int Unit, bool High>
DC_AMX DC_INLINE Lanes interleaved(const Lanes& a, const Lanes& b) {
  if constexpr (Unit == 1 && !High)
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
  else if constexpr (Unit == 1)
    return __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
  else if constexpr (Unit == 2 && !High)
    return __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
  else
    return __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
}

// Sixteen steps of a panel, each of four codes of eight rows, as 64 codes of each row: to [8], rows `ld` bytes apart.
DC_AMX DC_INLINE void rows_of_steps(const float* steps, int64_t width, int8_t* to, int64_t ld) {
  Lanes quads[2][4];  // [q][c], lanes 8 h + 4 g to 8 h + 4 g + 3: steps 8 h + 4 q to 8 h + 4 q + 3 of row 4 g + c
#pragma GCC unroll 2
  for (int q = 0; q < 2; ++q) {
    Lanes step[4];  // 4 q + c, and eight steps later
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      Half now, later;
      __builtin_memcpy(&now, steps + (4 * q + c) * width, sizeof(now));
      __builtin_memcpy(&later, steps + (8 + 4 * q + c) * width, sizeof(later));
      step[c] = __builtin_shufflevector(now, later, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    }
    const Lanes low = interleaved<1, false>(step[0], step[1]), high = interleaved<1, true>(step[0], step[1]);
    const Lanes low2 = interleaved<1, false>(step[2], step[3]), high2 = interleaved<1, true>(step[2], step[3]);
    quads[q][0] = interleaved<2, false>(low, low2);
    quads[q][1] = interleaved<2, true>(low, low2);
    quads[q][2] = interleaved<2, false>(high, high2);
    quads[q][3] = interleaved<2, true>(high, high2);
  }
  const auto put = [&](int64_t row, const Lanes& codes)
                       DC_AMX DC_INLINE_LAMBDA { __builtin_memcpy(to + row * ld, &codes, sizeof(codes)); };
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    // Groups of four lanes: steps 0, 8 of row c and of row 4 + c; then with the four steps after each between them.
    put(c, __builtin_shufflevector(quads[0][c], quads[1][c], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27));
    put(4 + c,
        __builtin_shufflevector(quads[0][c], quads[1][c], 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31));
  }
}

// A's rows [a_first, a_first + m) times B's [b_first, b_first + n) in blocks: take(sums [..][kAmxCols], row, rows, col,
// cols) of 32 rows and columns at most, in whole strips and vectors; rows and columns count from a_first and b_first.
// A block is taken while the next one is multiplied: one after the other, bfloat16 took three times as long at 128
// dimensions.
template <typename Sum, typename F>
DC_AMX DC_INLINE void amx_product(const Panels<float>& a, int64_t a_first, int64_t m, const Panels<float>& b,
                                  int64_t b_first, int64_t n, const F& take) {
  const int64_t bytes = 4 * a.depth;
  const Buffer<int8_t> strip(2 * kAmxRows * bytes);
  alignas(64) Sum sums[2][2 * kAmxRows * kAmxCols];
  const AmxTiles tiles;
  const auto columns = [&](int64_t j) { return AmxColumns{reinterpret_cast<const int8_t*>(b.at(j)), 4 * b.width(j)}; };
  for (int64_t row = 0; row < m; row += 2 * kAmxRows) {
    // Eight rows at a time lie in one panel. Where A ends, the rest of a tile is multiplied for nobody.
    const int64_t rows = std::min(2 * kAmxRows, round_up(m - row, kStripRows));
    for (int64_t r = 0; r < rows; r += kStripRows) {
      const int64_t i = a_first + row + r, width = a.width(i);
      for (int64_t k = 0; k < a.depth; k += 16)
        rows_of_steps(a.at(i) + k * width, width, strip.get() + r * bytes + 4 * k, bytes);
    }
    const auto width_at = [&](int64_t col) { return n - col > 16 ? int64_t{32} : int64_t{16}; };
    int64_t block = 0;
    for (int64_t col = 0; col < n; col += kAmxCols, ++block) {
      const int64_t j = b_first + col, cols = width_at(col);
      const AmxColumns both[2] = {columns(j), columns(cols > 16 ? j + 16 : j)};
      Sum* const to = sums[block % 2];
      if (rows > kAmxRows && cols > 16)
        amx_tile<2, 2>(strip.get(), bytes, both, bytes, to, kAmxCols);
      else if (rows > kAmxRows)
        amx_tile<2, 1>(strip.get(), bytes, both, bytes, to, kAmxCols);
      else if (cols > 16)
        amx_tile<1, 2>(strip.get(), bytes, both, bytes, to, kAmxCols);
      else
        amx_tile<1, 1>(strip.get(), bytes, both, bytes, to, kAmxCols);
      if (col > 0) take(sums[1 - block % 2], row, rows, col - kAmxCols, kAmxCols);
    }
    const int64_t last = (block - 1) * kAmxCols;
    take(sums[1 - block % 2], row, rows, last, width_at(last));
  }
}

}  // namespace deepclust::cpu

#endif
