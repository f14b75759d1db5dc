// What the products leave of the centroids: brackets of every distance, and the few that may be the least.
#pragma once

#include <cmath>
#include <optional>
#include <vector>

#include "../codes/row_codes.h"
#include "nearest.h"

namespace deepclust::cpu {

// The lower ends of a tile's brackets, V registers of centroids wide, and the running least of them.
// dots [rows, ..] kTileCols apart, low [rows, ld], least [rows, 16]. Upper ends are left to the few centroids that pass
// the first look.
template <typename L, int V, typename Dot, typename T>
DC_INLINE void lower_ends(const Dot* __restrict__ dots, const CodeBounds* __restrict__ bounds, int64_t rows,
                          const CodedCentroids<T>& coded, int64_t first, float* __restrict__ low, int64_t ld,
                          float* __restrict__ least) {
  using Vec = typename Register<L, float>::type;
  constexpr int64_t kL = Register<L, float>::kLanes;
  Vec half_low[V], scale[V], code_error[V], length[V], rest[V];
  for (int v = 0; v < V; ++v) {
    half_low[v] = load<L, float>(coded.half_low.get() + first + kL * v);
    scale[v] = load<L, float>(coded.scale.get() + first + kL * v);
    code_error[v] = load<L, float>(coded.code_error.get() + first + kL * v);
    length[v] = load<L, float>(coded.length.get() + first + kL * v);
    rest[v] = load<L, float>(coded.rest.get() + first + kL * v);
  }
  for (int64_t m = 0; m < rows; ++m) {
    Vec bottom = load<L, float>(least + m * 16);
    for (int v = 0; v < V; ++v) {
      const Vec dot = __builtin_convertvector((load<L, Dot>(dots + m * kTileCols + kL * v)), Vec);
      Vec end = half_low[v] - code_error[v] * bounds[m].length;
      end -= length[v] * bounds[m].error;
      end -= rest[v] * bounds[m].rest;
      end -= dot * scale[v] * bounds[m].scale;
      bottom = end < bottom ? end : bottom;  // keeps `bottom` where the end is NaN, from an overflow
      store<L, float>(low + m * ld + kL * v, end);
    }
    store<L, float>(least + m * 16, bottom);
  }
}

// All of a tile, V 64-byte vectors wide: in as many registers at a time as leave room for four bounds of each.
template <typename L, int V, typename Dot, typename T>
DC_INLINE void tile_ends(const Dot* dots, const CodeBounds* bounds, int64_t rows, const CodedCentroids<T>& coded,
                         int64_t first, float* low, int64_t ld, float* least) {
  constexpr int64_t kL = Register<L, float>::kLanes;
  if constexpr (L::kLevel == Level::avx512) return lower_ends<L, V>(dots, bounds, rows, coded, first, low, ld, least);
  for (int64_t c = 0; c < 16 * V; c += kL)
    lower_ends<L, 1>(dots + c, bounds, rows, coded, first + c, low + c, ld, least);
}

struct Candidate {
  int32_t row, centroid;
  float low;
};

// Appends the centroids [first, last) of one point whose lower end is not above `limit`. Before, lowers `limit` to the
// least upper end, with what the errors of two computed distances allow. `passed`, one for each register of centroids,
// is scratch.
template <typename L, typename T>
DC_INLINE void look_at_row(const CodedCentroids<T>& coded, const CodeBounds& bounds, int64_t first, int64_t last,
                           const float* __restrict__ low, float least, double wrong, int32_t row, float& limit,
                           int64_t* __restrict__ passed, std::vector<Candidate>& found) {
  using Vec = typename Register<L, float>::type;
  constexpr int64_t kL = Register<L, float>::kLanes;
  // Upper ends lie at most this far above lower ones, so that the least upper end is among what passes here.
  const float widest = (2.0f * (coded.most_code_error * bounds.length + coded.most_length * bounds.error +
                                coded.most_rest * bounds.rest) +
                        coded.widest_half) *
                       kSafe;
  const double reach = double{bounds.norm} * kSafe;
  const auto allowed = [&](float upper) DC_INLINE_LAMBDA {
    return upper + static_cast<float>(wrong / 2 * (reach * reach + 2 * std::max(0.0, double{upper}))) * kSafe;
  };
  const Vec coarse = broadcast<L, float>(std::min(limit, allowed(least + widest)));
  Vec top = broadcast<L, float>(kInfinity);
  int64_t count = 0;
  for (int64_t k = first; k < last; k += kL) {
    const Vec end = load<L, float>(low + k - first);
    if (all_lanes<L>(end > coarse)) continue;  // NaN, from an overflow, passes
    passed[count++] = k;
    const Vec code_error = load<L, float>(coded.code_error.get() + k), length = load<L, float>(coded.length.get() + k);
    const Vec half_low = load<L, float>(coded.half_low.get() + k);
    const Vec half_high = load<L, float>(coded.half_high.get() + k);
    const Vec rest = load<L, float>(coded.rest.get() + k);
    const Vec gap =
        (code_error * bounds.length + length * bounds.error + rest * bounds.rest) * 2.0f + (half_high - half_low);
    const Vec upper = end + gap * kSafe;
    top = upper < top ? upper : top;
  }
  const float upper = allowed(least_lane<L>(top));
  limit = upper < limit ? upper : limit;
  const Vec bound = broadcast<L, float>(limit);
  for (int64_t p = 0; p < count; ++p) {
    const int64_t k = passed[p];
    if (all_lanes<L>(load<L, float>(low + k - first) > bound)) continue;
    for (int64_t i = 0; i < kL && k + i < coded.clusters; ++i)
      if (!(low[k - first + i] > limit)) found.push_back({row, static_cast<int32_t>(k + i), low[k - first + i]});
  }
}

// What the product of a tile costs most of the time on: [8][48] of points from row `row` on and centroids [k, k +
// width).
template <typename T>
DC_INLINE void tile_products(const Points<T>& points, const CodedCentroids<T>& coded, int64_t row, int64_t rows,
                             const int32_t* shift, const float* y, int64_t k, int64_t width, float* dots) {
  switch (coded.kind) {
    case Codes::int8:
      return int8_tile(points.codes + row * coded.depth, coded.depth, shift, coded.panels.get() + k * coded.depth,
                       width, dots);
    case Codes::int16:
      return int16_tile(points.codes + row * coded.depth, coded.depth, coded.panels.get() + k * coded.depth, width,
                        dots);
    case Codes::none:
      return product(Matrix<const float>{y, points.d, rows, 1, round_up(points.d, 16)},
                     Panels<float>{coded.float_panels.get(), points.d, coded.padded}, k, k + width, dots, kTileCols,
                     false);
    case Codes::int8_tiles: return;  // as whole numbers, by int8_amx_tile
  }
}

// The largest lower end of a centroid that may be as near as a distance already reached.
template <typename T>
float limit_of(const CodeBounds& bounds, double wrong, T distance) {
  const double reach = double{bounds.norm} * kSafe, reached = static_cast<double>(distance);
  const double least = double{bounds.norm} / kSafe / kSafe - 4.0 * kRounding * double{bounds.norm} - 0x1p-58;
  const double inside = std::max(0.0, least);
  return static_cast<float>((reached - inside * inside) / 2 + wrong * reached + 1e-6 * reach * reach);
}

// What is left of the centroids for points [begin, end): candidates in the order of centroids, and for every point the
// limit that their lower ends must not exceed. `distance`, where given, is a distance already reached.
template <typename L, typename T>
DC_INLINE void candidates(const Points<T>& points, const CodedCentroids<T>& coded, int64_t begin, int64_t end,
                          const T* distance, std::vector<Candidate>& found, float* limit) {
  const int64_t d = points.d, size = end - begin;
  const double wrong = 2.2 * distance_error<T>(d);  // both distances of a comparison may be off
  for (int64_t i = 0; i < size; ++i)
    limit[i] = distance == nullptr ? kInfinity : limit_of(points.bounds[begin + i], wrong, distance[i]);
  // Rows that pass a panel while it is near, and bytes of codes that stay in the second-level cache, in whole panels.
  constexpr bool kLarge = L::kLevel == Level::avx512;
  constexpr int64_t kBlockBytes = int64_t{1} << (kLarge ? 19 : 18);
  const bool floats = coded.kind == Codes::none, tiles = coded.kind == Codes::int8_tiles;
  const int64_t most = kLarge && !tiles ? kTileRows : kGroupRows;
  const int64_t block = std::max(kTileCols, kBlockBytes / coded.depth / kTileCols * kTileCols);
  const int64_t ld = std::min(coded.padded, block), padded = round_up(d, 16);
  const Buffer<float> low(most * ld), y(floats ? most * padded : 1);
  const Buffer<int64_t> passed(ld / Register<L, float>::kLanes);
  alignas(64) float dots[kTileRows * kTileCols], least[kGroupRows * 16];
  alignas(64) int32_t sums[kGroupRows * kTileCols];
  std::optional<AmxTiles> in_use;
  if (tiles) in_use.emplace();
  // Lower ends of `rows` rows from the group's `row` on, and the panel of `width` centroids from k on.
  const auto take = [&](const auto* products, const CodeBounds* bounds, int64_t rows, int64_t k, int64_t width,
                        float* ends, float* nearest) DC_INLINE_LAMBDA {
    switch (width / 16) {
      case 1: return tile_ends<L, 1>(products, bounds, rows, coded, k, ends, ld, nearest);
      case 2: return tile_ends<L, 2>(products, bounds, rows, coded, k, ends, ld, nearest);
      default: return tile_ends<L, 3>(products, bounds, rows, coded, k, ends, ld, nearest);
    }
  };
  for (int64_t first = 0; first < coded.padded; first += block) {
    const int64_t last = std::min(coded.padded, first + block);
    for (int64_t group = 0; group < size; group += most) {
      const int64_t members = std::min(most, size - group);
      const CodeBounds* bounds = points.bounds + begin + group;
      std::fill(least, least + most * 16, kInfinity);
      for (int64_t m = 0; floats && m < members; ++m) {
        float square, largest;
        centre<L>(points.x + (begin + group + m) * d, points.mean, d, false, y.get() + m * padded, square, largest);
      }
      for (int64_t k = first; k < last; k += kTileCols) {
        const int64_t width = std::min(kTileCols, last - k);
        if (tiles) {
          int8_amx_tile(points.codes + (begin + group) * coded.depth, members, coded.depth,
                        reinterpret_cast<const int8_t*>(coded.panels.get()) + k * coded.depth, width, sums);
          take(sums, bounds, members, k, width, low.get() + k - first, least);
          continue;
        }
        for (int64_t row = 0; row < members; row += kTileRows) {
          const int64_t rows = std::min(kTileRows, members - row);
          int32_t shift[kTileRows] = {};
          for (int64_t m = 0; m < rows; ++m) shift[m] = bounds[row + m].shift;
          tile_products(points, coded, begin + group + row, rows, shift, y.get() + (floats ? row * padded : 0), k,
                        width, dots);
          take(dots, bounds + row, rows, k, width, low.get() + row * ld + k - first, least + row * 16);
        }
      }
      for (int64_t m = 0; m < members; ++m) {
        auto bottom = load<L, float>(least + m * 16);
        for (int64_t i = Register<L, float>::kLanes; i < 16; i += Register<L, float>::kLanes) {
          const auto other = load<L, float>(least + m * 16 + i);
          bottom = other < bottom ? other : bottom;
        }
        look_at_row<L>(coded, bounds[m], first, last, low.get() + m * ld, least_lane<L>(bottom), wrong,
                       static_cast<int32_t>(group + m), limit[group + m], passed.get(), found);
      }
    }
  }
}

}  // namespace deepclust::cpu
