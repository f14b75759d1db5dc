#include "code_tile.h"

namespace deepclust::cpu {
namespace {

// Whether level L has the place's instruction.
template <typename L, Place P>
inline constexpr bool kHasPlace = P == Place::two ? L::kLevel != Level::avx512 : L::kLevel != Level::base;

template <typename L>
using Ints = typename Register<L, int32_t>::type;

// sum += the products of the codes in each place, of which vpdpbusd wants b's unsigned. In place by force: g++ 12
// copies the accumulators of the intrinsic about in every step, which makes a tile take twice as long.
template <typename L, Place P>
DC_INLINE void multiply_add([[maybe_unused]] Ints<L>& sum, [[maybe_unused]] const Ints<L>& a,
                            [[maybe_unused]] const Ints<L>& b) {
#if defined(__x86_64__) && defined(__GNUC__)
  if constexpr (L::kLevel == Level::avx512) {
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(b), "v"(a));
  } else if constexpr (L::kLevel == Level::avx2 && P != Place::two) {
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(b), "x"(a));
  } else if constexpr (L::kLevel == Level::avx2) {
    typedef short Codes __attribute__((vector_size(32)));
    sum += __builtin_ia32_pmaddwd256((Codes)a, (Codes)b);
  } else {
    typedef short Codes __attribute__((vector_size(16)));
    sum += __builtin_ia32_pmaddwd128((Codes)a, (Codes)b);
  }
#endif
}

// Four bytes of memory in all of a register.
template <typename L>
DC_INLINE Ints<L> everywhere(const int32_t* from) {
#if defined(DC_LEVELS)
  if constexpr (L::kLevel == Level::avx512) {
    Ints<L> all;
    asm("vpbroadcastd %1, %0" : "=v"(all) : "m"(*from));
    return all;
  }
  if constexpr (L::kLevel == Level::avx2)
    return (Ints<L>)__builtin_ia32_vbroadcastss256(reinterpret_cast<const float*>(from));
  if constexpr (L::kLevel == Level::base) return (Ints<L>)__builtin_ia32_pshufd(__v4si{*from}, 0);
#endif
  return broadcast<L, int32_t>(*from);
}

constexpr int32_t kSigns = static_cast<int32_t>(0x80808080u);  // of four codes

// M rows by V registers; finish(sums, m, v) takes them. The sums begin with `before`, or with zeros.
template <typename L, Place P, int M, int V, typename F>
DC_INLINE void register_tile(const Strip<int32_t>& strip, const int32_t* __restrict__ panel, int64_t width,
                             const int32_t* before, const F& finish) {
  constexpr int64_t kStep = Register<L, int32_t>::kLanes;
  const Ints<L> flip = everywhere<L>(&kSigns);
  const int32_t* __restrict__ a = strip.data;
  Ints<L> sum[M][V];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) sum[m][v] = Ints<L>{};
  if (before != nullptr)
    for (int m = 0; m < M; ++m)
      for (int v = 0; v < V; ++v) sum[m][v] = load<L, int32_t>(before + m * kTileCols + v * kStep);
  const auto step = [&]() DC_INLINE_LAMBDA {
    Ints<L> b[V];
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) {
      b[v] = load<L, int32_t>(panel + v * kStep);
      if constexpr (P == Place::four_signed) b[v] ^= flip;
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const Ints<L> row = everywhere<L>(a + m * strip.row_stride);
#pragma GCC unroll 3
      for (int v = 0; v < V; ++v) multiply_add<L, P>(sum[m][v], row, b[v]);
    }
    a += strip.depth_stride;
    panel += width;
  };
  if constexpr (L::kLevel == Level::avx512)  // whose registers are all in use
    for (int64_t k = 0; k < strip.depth; ++k) step();
  else
#pragma GCC unroll 2
    for (int64_t k = 0; k < strip.depth; ++k) step();
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) finish(sum[m][v], m, v);
}

// Eight rows by the columns of a panel; finish(sums, row, column).
template <typename L, Place P, typename F>
DC_INLINE void strip_tiles(const CodePiece& piece, const int32_t* before, const F& finish) {
  constexpr int64_t kLane = Register<L, int32_t>::kLanes;
  if constexpr (L::kLevel == Level::avx512) {
    with_vectors<int32_t>(piece.cols, [&](auto vectors) DC_INLINE_LAMBDA {
      register_tile<L, P, kTileRows, decltype(vectors)::value>(piece.rows, piece.panel, piece.width, nullptr,
                                                               [&](const Ints<L>& sums, int m, int v)
                                                                   DC_INLINE_LAMBDA { finish(sums, m, v * kLane); });
    });
    return;
  }
  constexpr int kDown = 4, kAcross = 2;
  const Strip<int32_t>& all = piece.rows;
  for (int64_t col = 0; col < piece.cols; col += kAcross * kLane)
    for (int64_t row = 0; row < kTileRows; row += kDown)
      register_tile<L, P, kDown, kAcross>(
          Strip<int32_t>{all.data + row * all.row_stride, all.depth, all.depth_stride, all.row_stride},
          piece.panel + col, piece.width, before != nullptr ? before + row * kTileCols + col : nullptr,
          [&](const Ints<L>& sums, int m, int v) DC_INLINE_LAMBDA { finish(sums, row + m, col + v * kLane); });
}

// One piece a call: of a loop over pieces in one function, g++ 12 keeps the accumulators in memory.
template <Place P, bool Scaled>
struct MultiplyCodes {
  template <typename L>
  static DC_INLINE void run(const CodePiece& given) {
    if constexpr (kHasPlace<L, P>) {
      CodePiece piece = given;  // whose members no store of a vector is taken to change
      if (P == Place::four_signed) piece.rows.row_stride = 1;
      using Floats = typename Register<L, float>::type;
      const int32_t* const before = piece.first ? nullptr : piece.sums;
      const auto dots = [&](const Ints<L>& sums, int64_t row) DC_INLINE_LAMBDA {
        return __builtin_convertvector(P == Place::two ? sums : sums - piece.row_shift[row], Floats);
      };
      if constexpr (L::kLevel != Level::avx512)
        if (!piece.last)
          return strip_tiles<L, P>(piece, before, [&](const Ints<L>& sums, int64_t row, int64_t col) DC_INLINE_LAMBDA {
            store<L, int32_t>(piece.sums + row * kTileCols + col, sums);
          });
      if constexpr (!Scaled)
        strip_tiles<L, P>(piece, before, [&](const Ints<L>& sums, int64_t row, int64_t col) DC_INLINE_LAMBDA {
          store<L, float>(piece.out + row * piece.ldo + col, dots(sums, row));
        });
      else
        strip_tiles<L, P>(piece, before, [&](const Ints<L>& sums, int64_t row, int64_t col) DC_INLINE_LAMBDA {
          const Floats scale = load<L, float>(piece.col_scale + col) * piece.row_scale[row];
          store<L, float>(piece.out + row * piece.ldo + col, dots(sums, row) * scale);
        });
    }
  }
};

}  // namespace

template <Place P>
void multiply_codes(const CodePiece& piece) {
  if constexpr (P == Place::four)
    dispatch<MultiplyCodes<P, false>>(piece);
  else if constexpr (P == Place::four_signed)
    dispatch<MultiplyCodes<P, true>>(piece);
  else if (piece.row_scale == nullptr)
    dispatch<MultiplyCodes<P, false>>(piece);
  else
    dispatch<MultiplyCodes<P, true>>(piece);
}

template void multiply_codes<Place::two>(const CodePiece&);
template void multiply_codes<Place::four>(const CodePiece&);
template void multiply_codes<Place::four_signed>(const CodePiece&);

}  // namespace deepclust::cpu
