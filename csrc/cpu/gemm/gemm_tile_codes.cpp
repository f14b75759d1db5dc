#include "gemm_tile_codes.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "../../common/buffer.h"
#include "gemm_tile_amx.h"

namespace deepclust::cpu {
namespace {

static_assert(kTileCols == Panels<float>::kPanel && kTileRows == kStripRows);

template <Place P>
void tile_of_panels(const CodedRows& a, int64_t a_first, int64_t m, const CodedRows& b, int64_t b_first, int64_t n,
                    float* out, int64_t ldo) {
  const int64_t depth = a.codes.depth, most = piece_steps();
  const Buffer<int32_t> sums(depth > most ? round_up(m, kTileRows) * kTileCols : 0);
  for (int64_t col = 0; col < n; col += kTileCols)
    for (int64_t k = 0; k < depth; k += most) {
      const int64_t j = b_first + col, width = b.codes.width(j), steps = std::min(most, depth - k);
      CodePiece piece;
      piece.panel = reinterpret_cast<const int32_t*>(b.codes.at(j)) + k * width;
      piece.width = width;
      piece.cols = round_up(std::min(kTileCols, n - col), kLanes<float>);
      piece.col_scale = b.scale + j;
      piece.ldo = ldo;
      piece.first = k == 0;
      piece.last = k + steps == depth;
      for (int64_t row = 0; row < m; row += kTileRows) {
        const int64_t i = a_first + row, step = a.codes.width(i);
        piece.rows = {reinterpret_cast<const int32_t*>(a.codes.at(i)) + k * step, steps, step, 1};
        piece.sums = depth > most ? sums.get() + row * kTileCols : nullptr;
        piece.row_shift = a.shift + i;
        piece.row_scale = a.scale + i;
        piece.out = out + row * ldo + col;
        multiply_codes<P>(piece);
      }
    }
}

#if defined(DC_AMX)
DC_AMX void tile_by_amx(const CodedRows& a, int64_t a_first, int64_t m, const CodedRows& b, int64_t b_first, int64_t n,
                        float* out, int64_t ldo) {
  amx_product<int32_t>(
      a.codes, a_first, m, b.codes, b_first, n,
      [&](const int32_t* sums, int64_t row, int64_t rows, int64_t col, int64_t cols) DC_AMX DC_INLINE_LAMBDA {
        for (int64_t c = 0; c < cols; c += 16) {
          const __m512 scale = _mm512_loadu_ps(b.scale + b_first + col + c);
          for (int64_t r = 0; r < rows; ++r) {
            const auto sum = reinterpret_cast<__v16si>(_mm512_load_si512(sums + r * kAmxCols + c));
            _mm512_storeu_ps(out + (row + r) * ldo + col + c,
                             __builtin_convertvector(sum, __m512) * (scale * a.scale[a_first + row + r]));
          }
        }
      });
}
#endif

}  // namespace

int32_t code_limit(int64_t depth) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  const int64_t padded = round_up(depth, 16);
  auto limit = static_cast<int64_t>(std::sqrt(static_cast<double>(kMost) / static_cast<double>(padded)));
  limit = std::min<int64_t>(limit, std::numeric_limits<int16_t>::max());
  while (limit * limit * padded > kMost) --limit;
  return static_cast<int32_t>(limit);
}

void gemm_tile_int8(const CodedRows& a, int64_t a_first, int64_t m, const CodedRows& b, int64_t b_first, int64_t n,
                    [[maybe_unused]] bool tiles, float* out, int64_t ldo) {
#if defined(DC_AMX)
  if (tiles) return tile_by_amx(a, a_first, m, b, b_first, n, out, ldo);
#endif
  tile_of_panels<Place::four_signed>(a, a_first, m, b, b_first, n, out, ldo);
}

void gemm_tile_int16(const CodedRows& a, int64_t a_first, int64_t m, const CodedRows& b, int64_t b_first, int64_t n,
                     float* out, int64_t ldo) {
  tile_of_panels<Place::two>(a, a_first, m, b, b_first, n, out, ldo);
}

}  // namespace deepclust::cpu
