// The codes of points and centroids, with the norms that the bounds are made of.
#include <cstring>

#include "../codes/row_codes.h"
#include "nearest.h"

namespace deepclust::cpu {
namespace {

// f(Code{}), with the type of one code.
template <typename F>
DC_INLINE void with_code(Codes kind, const F& f) {
  if (kind == Codes::int16)
    f(int16_t{});
  else
    f(int8_t{});
}

// Rows of y [rows, padded(d)] as they are coded: themselves, or turned coordinates in the subspace. `square` and
// `largest` hold those of y, and `largest` then those of what is coded; `rest` is what is outside.
template <typename L, typename T>
DC_INLINE const float* coded_rows(const Points<T>& points, const float* y, int64_t rows, float* inside, float* square,
                                  float* largest, float* rest) {
  std::fill(rest, rest + rows, 0.0f);
  if (points.space == nullptr) return y;
  const int64_t width = points.space->width();
  points.space->project(y, rows, round_up(points.d, 16), inside);
  for (int64_t m = 0; m < rows; ++m) {
    float within;
    measure<L>(inside + m * width, width, within, largest[m]);
    rest[m] = points.space->rest(square[m], within);
    rotate<L>(inside + m * width, width);
    measure<L>(inside + m * width, width, within, largest[m]);
  }
  return inside;
}

// Of |y| |z|, what coordinates in the subspace get wrong.
template <typename T>
float slack_of(const Points<T>& points) {
  return points.space == nullptr ? 0.0f : points.space->slack();
}

struct EncodePoints {
  template <typename L, typename T>
  static DC_INLINE void run(const Points<T>& points, int64_t begin, int64_t end) {
    constexpr int64_t kRows = 16;  // that are projected at once
    const int64_t group = points.space == nullptr ? 1 : kRows;
    const bool turned = points.turned() && points.space == nullptr;
    const int64_t padded = round_up(points.d, 16), width = round_up(points.coded(), 16), depth = points.depth();
    const Buffer<float> y(group * padded), inside(points.space == nullptr ? 0 : kRows * width);
    const Buffer<int16_t> memory(std::max(width, depth / 2));
    std::fill(memory.get(), memory.get() + std::max(width, depth / 2), int16_t{0});
    const float lost = lost_norm(padded), limit = points.limit(), slack = slack_of(points);
    float square[kRows], largest[kRows], rest[kRows];
    for (int64_t first = begin; first < end; first += group) {
      const int64_t rows = std::min(group, end - first);
      for (int64_t m = 0; m < rows; ++m)
        centre<L>(points.x + (first + m) * points.d, points.mean, points.d, turned, y.get() + m * padded, square[m],
                  largest[m]);
      const float* const row = coded_rows<L>(points, y.get(), rows, inside.get(), square, largest, rest);
      for (int64_t m = 0; m < rows; ++m) {
        const float norm = std::sqrt(square[m]) * kSafe + lost;
        CodeBounds& bounds = points.bounds[first + m];
        // y itself is x - mean rounded, and turned in float.
        bounds = {1.0f, norm, (2.0f * kRounding + slack) * norm + 2.0f * lost, rest[m], norm, 0};
        if (points.kind == Codes::none) continue;
        int32_t total, squares;
        bounds.scale = largest[m] / limit;
        with_code(points.kind, [&](auto code) DC_INLINE_LAMBDA {
          auto* const codes = reinterpret_cast<decltype(code)*>(memory.get());
          const float missed = round_to_codes<L>(row + m * width, width, bounds.scale, limit, codes, total, squares);
          bounds.error += std::sqrt(missed) * kSafe;
        });
        bounds.length = bounds.scale * std::sqrt(static_cast<float>(squares)) * kSafe;
        if (points.kind == Codes::int8) bounds.shift = static_cast<int32_t>(kCodeZero) * total;
        std::memcpy(points.codes + (first + m) * depth, memory.get(), static_cast<size_t>(depth));
      }
    }
  }
};

// Puts a column's codes into a panel, `width` columns wide: a step of four bytes at a time. `zero` is the code of 0 in
// 8 bits.
template <typename Code>
DC_INLINE void put_codes(const Code* codes, int64_t bytes, int64_t width, int64_t col, int64_t zero, uint8_t* panel) {
  constexpr int64_t kSteps = 4 / sizeof(Code);
  for (int64_t j = 0; j < bytes / 4; ++j)
    for (int64_t s = 0; s < kSteps; ++s) {
      uint8_t* const to = panel + (j * width + col) * 4 + s * static_cast<int64_t>(sizeof(Code));
      if constexpr (sizeof(Code) == 1)
        *to = static_cast<uint8_t>(codes[j * kSteps + s] + zero);
      else
        std::memcpy(to, codes + j * kSteps + s, sizeof(Code));
    }
}

struct EncodeCentroids {
  template <typename L, typename T>
  static DC_INLINE void run(const Points<T>& points, CodedCentroids<T>& coded, int64_t block) {
    const bool turned = points.turned() && points.space == nullptr;
    const int64_t d = points.d, padded = round_up(d, 16), depth = coded.depth, entries = round_up(points.coded(), 16);
    const int64_t first = block * kTileCols, width = std::min(kTileCols, coded.padded - first);
    const int64_t members = std::clamp<int64_t>(coded.clusters - first, 0, width);
    const Buffer<float> rows(kTileCols * padded), inside(points.space == nullptr ? 0 : kTileCols * entries);
    const int64_t room = std::max(entries, depth / 2);
    const Buffer<int16_t> memory(room);
    std::fill(memory.get(), memory.get() + room, int16_t{0});
    const bool has_codes = coded.kind != Codes::none;
    const float lost = lost_norm(padded), lost_half = lost_product(padded), limit = points.limit();
    uint8_t* panel = coded.panels.get() + (has_codes ? first * depth : 0);
    float square[kTileCols], largest[kTileCols], rest[kTileCols];
    for (int64_t col = 0; col < members; ++col)
      centre<L>(coded.centroids + (first + col) * d, points.mean, d, turned, rows.get() + col * padded, square[col],
                largest[col]);
    std::fill(rows.get() + members * padded, rows.get() + width * padded, 0.0f);
    const float* const code_rows = coded_rows<L>(points, rows.get(), members, inside.get(), square, largest, rest);
    for (int64_t col = 0; col < width; ++col) {
      const int64_t k = first + col;
      if (col >= members) {  // nobody's candidate
        coded.half_low.get()[k] = coded.half_high.get()[k] = kInfinity;
        coded.scale.get()[k] = coded.code_error.get()[k] = coded.length.get()[k] = coded.rest.get()[k] = 0.0f;
        std::fill(memory.get(), memory.get() + room, int16_t{0});
      } else {
        float scale = 1.0f, missed = 0.0f;
        double half = 0.0;
        for (int64_t j = 0; j < d; ++j) {
          const double z = static_cast<double>(coded.centroids[k * d + j]) - static_cast<double>(points.mean[j]);
          half += 0.5 * z * z;
        }
        const float norm = std::sqrt(square[col]) * kSafe + lost;
        if (has_codes) {
          int32_t total, squares;
          scale = largest[col] / limit;
          with_code(coded.kind, [&](auto code) DC_INLINE_LAMBDA {
            auto* const codes = reinterpret_cast<decltype(code)*>(memory.get());
            missed = round_to_codes<L>(code_rows + col * entries, entries, scale, limit, codes, total, squares);
          });
        } else {
          // The product is a chain of d roundings.
          const float chain = static_cast<float>(d) * 0x1p-23f * norm;
          missed = chain * chain;
        }
        coded.half_low.get()[k] = static_cast<float>(half) * (1.0f - kRounding) - lost_half;
        coded.half_high.get()[k] = static_cast<float>(half) * (1.0f + kRounding) + lost_half;
        coded.scale.get()[k] = scale;
        // Beside what the codes miss, the roundings of everything that is multiplied by a length of y.
        coded.code_error.get()[k] = std::sqrt(missed) * kSafe + 4.0f * kRounding * norm + lost;
        // Of the coordinates in a subspace too.
        coded.length.get()[k] = norm * (1.0f + 2.0f * slack_of(points));
        coded.rest.get()[k] = rest[col];
      }
      if (has_codes)
        with_code(coded.kind, [&](auto code) DC_INLINE_LAMBDA {
          put_codes(reinterpret_cast<const decltype(code)*>(memory.get()), depth, width, col,
                    coded.kind == Codes::int8_tiles ? 0 : kCodeZero, panel);
        });
    }
    if (!has_codes) {
      const Panels<float> panels{coded.float_panels.get(), d, coded.padded};
      lay_out(Matrix<const float>{rows.get(), d, width, 1, padded}, panels, first);
    }
  }
};

}  // namespace

template <typename T>
void encode_points(const Points<T>& points, int64_t begin, int64_t end) {
  dispatch<EncodePoints>(points, begin, end);
}
template <typename T>
void encode_centroids(const Points<T>& points, CodedCentroids<T>& coded, int64_t block) {
  dispatch<EncodeCentroids>(points, coded, block);
}

template void encode_points(const Points<float>&, int64_t, int64_t);
template void encode_points(const Points<double>&, int64_t, int64_t);
template void encode_centroids(const Points<float>&, CodedCentroids<float>&, int64_t);
template void encode_centroids(const Points<double>&, CodedCentroids<double>&, int64_t);

}  // namespace deepclust::cpu
