#include "row_code_tile.h"

#include <algorithm>

#include "amx.h"
#include "code_tile.h"

namespace deepclust::cpu {
namespace {

template <Place P>
void tile_of_rows(const int8_t* a, int64_t bytes, const int32_t* shift, const uint8_t* panel, int64_t cols,
                  float* out) {
  alignas(64) int32_t sums[kTileRows * kTileCols];
  const int64_t all = bytes / 4, most = piece_steps();
  CodePiece piece;
  piece.width = piece.cols = cols;
  piece.sums = sums;
  piece.row_shift = shift;
  piece.out = out;
  piece.ldo = kTileCols;
  for (int64_t k = 0; k < all; k += most) {
    const int64_t steps = std::min(most, all - k);
    piece.rows = {reinterpret_cast<const int32_t*>(a) + k, steps, 1, all};
    piece.panel = reinterpret_cast<const int32_t*>(panel) + k * cols;
    piece.first = k == 0;
    piece.last = k + steps == all;
    multiply_codes<P>(piece);
  }
}

#if defined(DC_AMX)
template <int R>
DC_AMX void amx_tiles(const int8_t* a, int64_t bytes, const int8_t* panel, int64_t cols, int32_t* out) {
  for (int64_t col = 0; col < cols; col += 32) {
    const AmxColumns both[2] = {{panel + 4 * col, 4 * cols}, {panel + 4 * col + kAmxBytes, 4 * cols}};
    if (cols - col > 16)
      amx_tile<R, 2>(a, bytes, both, bytes, out + col, kTileCols);
    else
      amx_tile<R, 1>(a, bytes, both, bytes, out + col, kTileCols);
  }
}
#endif

}  // namespace

void int8_tile(const int8_t* a, int64_t bytes, const int32_t* shift, const uint8_t* panel, int64_t cols, float* out) {
  tile_of_rows<Place::four>(a, bytes, shift, panel, cols, out);
}

void int16_tile(const int8_t* a, int64_t bytes, const uint8_t* panel, int64_t cols, float* out) {
  tile_of_rows<Place::two>(a, bytes, nullptr, panel, cols, out);
}

void int8_amx_tile([[maybe_unused]] const int8_t* a, [[maybe_unused]] int64_t rows, [[maybe_unused]] int64_t bytes,
                   [[maybe_unused]] const int8_t* panel, [[maybe_unused]] int64_t cols, [[maybe_unused]] int32_t* out) {
#if defined(DC_AMX)
  if (rows > kAmxRows)
    amx_tiles<2>(a, bytes, panel, cols, out);
  else
    amx_tiles<1>(a, bytes, panel, cols, out);
#endif
}

}  // namespace deepclust::cpu
