#include "int16_tile.h"

#include <cmath>
#include <cstdlib>
#include <limits>

#include "../../common/buffer.h"
#include "int8_tile.h"
#include "tile.h"

namespace deepclust::cpu {
namespace {

// Steps of the depth (two codes each): a panel of B takes 12 KB of the first-level cache then, a panel of A as much.
// Deeper rows in one piece evict each other: a graph of 4,000 x 768 took 28 % longer on a Zen 3.
constexpr int64_t kDepthOfBlock = 64;

// What the 32 bits of a place are: two codes of 16 bits, or four of 8, those of B unsigned. B may lie there signed, 128
// less than what is multiplied.
enum class Place { two, four, four_signed };

// sum += the products of the codes in each place.
template <typename L, Place P>
DC_INLINE void multiply_add([[maybe_unused]] typename Register<L, int32_t>::type& sum,
                            [[maybe_unused]] const typename Register<L, int32_t>::type& a,
                            [[maybe_unused]] const typename Register<L, int32_t>::type& b) {
#if defined(__x86_64__) && defined(__GNUC__)
  if constexpr (L::kLevel == Level::avx2 && P != Place::two) {
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(b), "x"(a));
  } else if constexpr (L::kLevel == Level::avx2) {
    typedef short Codes __attribute__((vector_size(32)));
    sum += __builtin_ia32_pmaddwd256((Codes)a, (Codes)b);
  } else if constexpr (L::kLevel == Level::base) {
    typedef short Codes __attribute__((vector_size(16)));
    sum += __builtin_ia32_pmaddwd128((Codes)a, (Codes)b);
  }
#endif
}

// The codes of one place in all of a register, straight from memory.
template <typename L>
DC_INLINE typename Register<L, int32_t>::type codes_everywhere(const int32_t* from) {
#if defined(DC_LEVELS)
  if constexpr (L::kLevel == Level::avx2)
    return (typename Register<L, int32_t>::type)__builtin_ia32_vbroadcastss256(reinterpret_cast<const float*>(from));
  if constexpr (L::kLevel == Level::base)
    return (typename Register<L, int32_t>::type)__builtin_ia32_pshufd(__v4si{*from}, 0);
#endif
  return broadcast<L, int32_t>(*from);
}

// M rows by V registers; finish(sums, m, v) takes them. The sums begin with `before` [row][kTileCols], or with zeros.
template <typename L, Place P, int M, int V, typename F>
DC_INLINE void code_tile(const Strip<int32_t>& strip, const int32_t* __restrict__ panel, int64_t width,
                         const int32_t* before, const F& finish) {
  using R = typename Register<L, int32_t>::type;
  constexpr int64_t kStep = Register<L, int32_t>::kLanes;
  const int32_t* __restrict__ a = strip.data;
  R sum[M][V] = {};
  if (before != nullptr)
    for (int m = 0; m < M; ++m)
      for (int v = 0; v < V; ++v) sum[m][v] = load<L, int32_t>(before + m * kTileCols + v * kStep);
#pragma GCC unroll 2
  for (int64_t k = 0; k < strip.depth; ++k, a += strip.depth_stride, panel += width) {
    R b[V];
    for (int v = 0; v < V; ++v) {
      b[v] = load<L, int32_t>(panel + v * kStep);
      if constexpr (P == Place::four_signed) b[v] ^= broadcast<L, int32_t>(static_cast<int32_t>(0x80808080u));
    }
    for (int m = 0; m < M; ++m) {
      const R row = codes_everywhere<L>(a + m * strip.row_stride);
      for (int v = 0; v < V; ++v) multiply_add<L, P>(sum[m][v], row, b[v]);
    }
  }
  for (int m = 0; m < M; ++m)
    for (int v = 0; v < V; ++v) finish(sum[m][v], m, v);
}

// Eight rows by a panel's columns; finish(sums, row, column).
template <typename L, Place P, typename F>
DC_INLINE void strip_tiles(const Strip<int32_t>& strip, const int32_t* panel, int64_t width, int64_t cols,
                           const int32_t* before, const F& finish) {
  constexpr int kDown = 4, kAcross = 2;
  constexpr int64_t kLane = Register<L, int32_t>::kLanes;
  for (int64_t col = 0; col < cols; col += kAcross * kLane)
    for (int64_t row = 0; row < kStripRows; row += kDown)
      code_tile<L, P, kDown, kAcross>(
          Strip<int32_t>{strip.data + row * strip.row_stride, strip.depth, strip.depth_stride, strip.row_stride},
          panel + col, width, before != nullptr ? before + row * kTileCols + col : nullptr,
          [&](const typename Register<L, int32_t>::type& sums, int m, int v)
              DC_INLINE_LAMBDA { finish(sums, row + m, col + v * kLane); });
}

template <typename L>
DC_INLINE typename Register<L, float>::type as_floats(const typename Register<L, int32_t>::type& sums) {
  return __builtin_convertvector(sums, typename Register<L, float>::type);
}

// [8][48] of rows that lie `depth` bytes apart. Sums of unsigned codes have a row's shift too much.
template <typename L, Place P>
DC_INLINE void tile_of_rows(const int8_t* a, int64_t depth, const int32_t* shift, const uint8_t* panel, int64_t cols,
                            float* out) {
  using Ints = typename Register<L, int32_t>::type;
  const auto* rows = reinterpret_cast<const int32_t*>(a);
  const auto* columns = reinterpret_cast<const int32_t*>(panel);
  const int64_t all = depth / 4;
  alignas(64) int32_t sums[kStripRows * kTileCols];
  for (int64_t k = 0; k < all; k += kDepthOfBlock) {
    const int64_t steps = std::min(kDepthOfBlock, all - k);
    const Strip<int32_t> strip{rows + k, steps, 1, all};
    const int32_t* const before = k > 0 ? sums : nullptr;
    if (k + steps < all)
      strip_tiles<L, P>(strip, columns + k * cols, cols, cols, before,
                        [&](const Ints& now, int64_t row, int64_t col)
                            DC_INLINE_LAMBDA { store<L, int32_t>(sums + row * kTileCols + col, now); });
    else
      strip_tiles<L, P>(strip, columns + k * cols, cols, cols, before,
                        [&](const Ints& now, int64_t row, int64_t col) DC_INLINE_LAMBDA {
                          const Ints dots = P == Place::two ? now : now - shift[row];
                          store<L, float>(out + row * kTileCols + col, as_floats<L>(dots));
                        });
  }
}

template <typename L, Place P>
DC_INLINE void tile_of_panels(const CodedRows& a, int64_t a_first, int64_t m, const CodedRows& b, int64_t b_first,
                              int64_t n, float* out, int64_t ldo) {
  using Ints = typename Register<L, int32_t>::type;
  constexpr int64_t kPanel = Panels<float>::kPanel;
  static_assert(kPanel == kTileCols);
  const int64_t depth = a.codes.depth;
  const Buffer<int32_t> sums(depth > kDepthOfBlock ? round_up(m, kStripRows) * kPanel : 0);
  for (int64_t col = 0; col < n; col += kPanel) {
    const int64_t j = b_first + col, width = b.codes.width(j), cols = round_up(std::min(kPanel, n - col), 16);
    for (int64_t k = 0; k < depth; k += kDepthOfBlock) {
      const int64_t steps = std::min(kDepthOfBlock, depth - k);
      const auto* panel = reinterpret_cast<const int32_t*>(b.codes.at(j)) + k * width;
      for (int64_t row = 0; row < m; row += kStripRows) {
        const int64_t i = a_first + row, step = a.codes.width(i);
        const Strip<int32_t> strip{reinterpret_cast<const int32_t*>(a.codes.at(i)) + k * step, steps, step, 1};
        int32_t* const sum = sums.get() + (k > 0 || k + steps < depth ? row * kPanel : 0);
        const int32_t* const before = k > 0 ? sum : nullptr;
        if (k + steps < depth) {
          strip_tiles<L, P>(strip, panel, width, cols, before,
                            [&](const Ints& now, int64_t r, int64_t c)
                                DC_INLINE_LAMBDA { store<L, int32_t>(sum + r * kPanel + c, now); });
          continue;
        }
        strip_tiles<L, P>(strip, panel, width, cols, before,
                          [&](const Ints& now, int64_t r, int64_t c) DC_INLINE_LAMBDA {
                            const auto scale = load<L, float>(b.scale + j + c) * a.scale[i + r];
                            const Ints dots = P == Place::two ? now : now - a.shift[i + r];
                            store<L, float>(out + (row + r) * ldo + col + c, as_floats<L>(dots) * scale);
                          });
      }
    }
  }
}

struct Int16Tile {
  template <typename L>
  static DC_INLINE void run(const int8_t* a, int64_t depth, const uint8_t* panel, int64_t cols, float* out) {
    tile_of_rows<L, Place::two>(a, depth, nullptr, panel, cols, out);
  }
};
struct Int8Tile {
  template <typename L>
  static DC_INLINE void run(const int8_t* a, int64_t depth, const int32_t* shift, const uint8_t* panel, int64_t cols,
                            float* out) {
    if constexpr (L::kLevel == Level::avx2) tile_of_rows<L, Place::four>(a, depth, shift, panel, cols, out);
  }
};
struct GemmTileInt16 {
  template <typename L>
  static DC_INLINE void run(const CodedRows& a, int64_t a_first, int64_t m, const CodedRows& b, int64_t b_first,
                            int64_t n, float* out, int64_t ldo) {
    tile_of_panels<L, Place::two>(a, a_first, m, b, b_first, n, out, ldo);
  }
};
struct GemmTileInt8 {
  template <typename L>
  static DC_INLINE void run(const CodedRows& a, int64_t a_first, int64_t m, const CodedRows& b, int64_t b_first,
                            int64_t n, float* out, int64_t ldo) {
    if constexpr (L::kLevel == Level::avx2)
      tile_of_panels<L, Place::four_signed>(a, a_first, m, b, b_first, n, out, ldo);
  }
};

}  // namespace

bool have_int16_tile() {
#if defined(__x86_64__) && defined(__GNUC__)
  return simd_level() != Level::avx512 && std::getenv("DEEPCLUST_NO_INT8") == nullptr;
#else
  return false;
#endif
}

int32_t code_limit(int64_t depth) {
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  const int64_t padded = round_up(depth, 16);
  auto limit = static_cast<int64_t>(std::sqrt(static_cast<double>(kMost) / static_cast<double>(padded)));
  limit = std::min<int64_t>(limit, std::numeric_limits<int16_t>::max());
  while (limit * limit * padded > kMost) --limit;
  return static_cast<int32_t>(limit);
}

void int16_tile(const int8_t* a, int64_t depth, const uint8_t* panel, int64_t cols, float* out) {
  dispatch<Int16Tile>(a, depth, panel, cols, out);
}

void gemm_tile_int16(const CodedRows& a, int64_t a_first, int64_t m, const CodedRows& b, int64_t b_first, int64_t n,
                     float* out, int64_t ldo) {
  dispatch<GemmTileInt16>(a, a_first, m, b, b_first, n, out, ldo);
}

void int8_tile_avx(const int8_t* a, int64_t depth, const int32_t* shift, const uint8_t* panel, int64_t cols,
                   float* out) {
  dispatch<Int8Tile>(a, depth, shift, panel, cols, out);
}

void gemm_tile_int8_avx(const CodedRows& a, int64_t a_first, int64_t m, const CodedRows& b, int64_t b_first, int64_t n,
                        float* out, int64_t ldo) {
  dispatch<GemmTileInt8>(a, a_first, m, b, b_first, n, out, ldo);
}

}  // namespace deepclust::cpu
