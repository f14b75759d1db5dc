// The codes of points and centroids, with the norms that the bounds are made of.
#include <cstring>

#include "../codes/row_codes.h"
#include "nearest.h"

namespace deepclust::cpu {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// f(Code{}), with the type of one code.
template <typename F>
DC_INLINE void with_code(Codes kind, const F& f) {
  if (kind == Codes::int16)
    f(int16_t{});
  else
    f(int8_t{});
}

struct EncodePoints {
  template <typename L, typename T>
  static DC_INLINE void run(const Points<T>& points, int64_t begin, int64_t end) {
    const int64_t padded = round_up(points.d, 16), depth = points.depth();
    const Buffer<float> row(padded);
    const Buffer<int16_t> memory(padded);
    const float lost = lost_norm(padded), limit = points.limit();
    for (int64_t i = begin; i < end; ++i) {
      float square, largest;
      centre<L>(points.x + i * points.d, points.mean, points.d, points.turned(), row.get(), square, largest);
      const float norm = std::sqrt(square) * kSafe + lost;
      CodeBounds& bounds = points.bounds[i];
      // y itself is x - mean rounded, and turned in float.
      bounds = {1.0f, norm, 2.0f * kRounding * norm + 2.0f * lost, 0};
      if (points.kind == Codes::none) continue;
      int32_t total, squares;
      bounds.scale = largest / limit;
      with_code(points.kind, [&](auto code) DC_INLINE_LAMBDA {
        auto* const codes = reinterpret_cast<decltype(code)*>(memory.get());
        const float missed = round_to_codes<L>(row.get(), padded, bounds.scale, limit, codes, total, squares);
        bounds.error += std::sqrt(missed) * kSafe;
      });
      bounds.length = bounds.scale * std::sqrt(static_cast<float>(squares)) * kSafe;
      if (points.kind == Codes::int8) bounds.shift = static_cast<int32_t>(kCodeZero) * total;
      std::memcpy(points.codes + i * depth, memory.get(), static_cast<size_t>(depth));
    }
  }
};

// The place of a panel, `width` columns wide, where step j of column `col` lies: a step of four bytes at a time.
template <typename Code>
DC_INLINE void put_codes(const Code* codes, int64_t bytes, int64_t width, int64_t col, uint8_t* panel) {
  constexpr int64_t kSteps = 4 / sizeof(Code);
  for (int64_t j = 0; j < bytes / 4; ++j)
    for (int64_t s = 0; s < kSteps; ++s) {
      uint8_t* const to = panel + (j * width + col) * 4 + s * static_cast<int64_t>(sizeof(Code));
      if constexpr (sizeof(Code) == 1)
        *to = static_cast<uint8_t>(codes[j * kSteps + s] + kCodeZero);
      else
        std::memcpy(to, codes + j * kSteps + s, sizeof(Code));
    }
}

struct EncodeCentroids {
  template <typename L, typename T>
  static DC_INLINE void run(const Points<T>& points, CodedCentroids<T>& coded, int64_t block) {
    const int64_t d = points.d, padded = round_up(d, 16), depth = coded.depth;
    const int64_t first = block * kTileCols, width = std::min(kTileCols, coded.padded - first);
    const Buffer<float> rows(kTileCols * padded);
    const Buffer<int16_t> memory(padded);
    const bool has_codes = coded.kind != Codes::none;
    const float lost = lost_norm(padded), lost_half = lost_product(padded), limit = points.limit();
    uint8_t* panel = coded.panels.get() + (has_codes ? first * depth : 0);
    for (int64_t col = 0; col < width; ++col) {
      const int64_t k = first + col;
      float* row = rows.get() + col * padded;
      if (k >= coded.clusters) {  // nobody's candidate
        coded.half_low.get()[k] = coded.half_high.get()[k] = kInfinity;
        coded.scale.get()[k] = coded.code_error.get()[k] = coded.length.get()[k] = 0.0f;
        std::fill(row, row + padded, 0.0f);
        std::fill(memory.get(), memory.get() + padded, int16_t{0});
      } else {
        float square, largest, scale = 1.0f, missed = 0.0f;
        centre<L>(coded.centroids + k * d, points.mean, d, points.turned(), row, square, largest);
        double half = 0.0;
        for (int64_t j = 0; j < d; ++j) {
          const double z = static_cast<double>(coded.centroids[k * d + j]) - static_cast<double>(points.mean[j]);
          half += 0.5 * z * z;
        }
        const float norm = std::sqrt(square) * kSafe + lost;
        if (has_codes) {
          int32_t total, squares;
          scale = largest / limit;
          with_code(coded.kind, [&](auto code) DC_INLINE_LAMBDA {
            auto* const codes = reinterpret_cast<decltype(code)*>(memory.get());
            missed = round_to_codes<L>(row, padded, scale, limit, codes, total, squares);
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
        coded.length.get()[k] = norm;
      }
      if (has_codes)
        with_code(coded.kind, [&](auto code) DC_INLINE_LAMBDA {
          put_codes(reinterpret_cast<const decltype(code)*>(memory.get()), depth, width, col, panel);
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
