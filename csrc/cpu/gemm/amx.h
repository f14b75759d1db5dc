// AMX: tiles of 16 rows of 64 bytes, and products of a tile by a tile: 1024 multiply-adds of 8-bit codes a cycle, where
// VNNI does 128.
//
// Of the eight tiles 0 to 3 hold sums, 4 and 5 tiles of A (16 rows of 64 codes), 6 and 7 tiles of B (16 steps of four
// codes by 16 columns, what panels of 8-bit codes are too, so that only A may have to be laid out anew): 32 rows by 32
// columns at a time take one load a product, of 8 cycles beside 16.
#pragma once

#include <type_traits>

#include "code_instructions.h"

#if defined(DC_LEVELS) && defined(__linux__)
#include <immintrin.h>
#define DC_AMX __attribute__((target("avx512f,avx512bw,avx512vl,amx-tile,amx-int8,amx-bf16")))
#endif

namespace deepclust::cpu {

inline constexpr int64_t kAmxRows = 16;   // of a tile of A
inline constexpr int64_t kAmxBytes = 64;  // of a row of it, so of a step of the depth

// Whether this processor has it and the system lets this process use it, and neither DEEPCLUST_NO_AMX nor
// DEEPCLUST_NO_INT8 is set. Ask once in a call, for memory is laid out by the answer.
bool have_amx();

// All eight tiles at full size while it lives. Tiles belong to the calling thread, and to nobody across a call.
class AmxTiles {
 public:
#if defined(DC_AMX)
  AmxTiles() {
    struct alignas(64) {
      uint8_t palette = 1, first_row = 0, reserved[14] = {};
      uint16_t bytes[16] = {};
      uint8_t rows[16] = {};
    } shapes;
    for (int tile = 0; tile < 8; ++tile) {
      shapes.bytes[tile] = kAmxBytes;
      shapes.rows[tile] = kAmxRows;
    }
    asm volatile("ldtilecfg %0" : : "m"(shapes));
  }
  ~AmxTiles() { asm volatile("tilerelease"); }
#else
  AmxTiles() = default;
#endif
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;
};

#if defined(DC_AMX)
// 16 columns of B, whose steps of four codes lie `stride` bytes apart.
struct AmxColumns {
  const int8_t* data;
  int64_t stride;
};

// The instruction's tiles are part of its name. Sums of codes are whole numbers, those of pairs of bfloat16 are float.
#define DC_AMX_MULTIPLY(sum, a, b)            \
  do {                                        \
    if constexpr (std::is_same_v<Sum, float>) \
      _tile_dpbf16ps(sum, a, b);              \
    else                                      \
      _tile_dpbssd(sum, a, b);                \
  } while (false)

// out = R times 16 rows of A, `a_stride` bytes apart, by one or two times 16 columns; rows of out are ld apart. The
// depth is `bytes`, a multiple of 64.
template <int R, int V, typename Sum>
DC_AMX DC_INLINE void amx_tile(const int8_t* a, int64_t a_stride, const AmxColumns (&b)[2], int64_t bytes, Sum* out,
                               int64_t ld) {
  asm volatile("" : : : "memory");  // the loads below are not seen to read what was written before
  _tile_zero(0);
  if constexpr (V > 1) _tile_zero(1);
  if constexpr (R > 1) _tile_zero(2);
  if constexpr (R > 1 && V > 1) _tile_zero(3);
  for (int64_t k = 0; k < bytes; k += kAmxBytes) {
    _tile_loadd(4, a + k, a_stride);
    _tile_loadd(6, b[0].data + k / 4 * b[0].stride, b[0].stride);
    DC_AMX_MULTIPLY(0, 4, 6);
    if constexpr (V > 1) {
      _tile_loadd(7, b[1].data + k / 4 * b[1].stride, b[1].stride);
      DC_AMX_MULTIPLY(1, 4, 7);
    }
    if constexpr (R > 1) {
      _tile_loadd(5, a + 16 * a_stride + k, a_stride);
      DC_AMX_MULTIPLY(2, 5, 6);
      if constexpr (V > 1) DC_AMX_MULTIPLY(3, 5, 7);
    }
  }
  const int64_t stride = ld * int64_t{sizeof(Sum)};
  _tile_stored(0, out, stride);
  if constexpr (V > 1) _tile_stored(1, out + 16, stride);
  if constexpr (R > 1) _tile_stored(2, out + 16 * ld, stride);
  if constexpr (R > 1 && V > 1) _tile_stored(3, out + 16 * ld + 16, stride);
}
#undef DC_AMX_MULTIPLY
#endif

}  // namespace deepclust::cpu
