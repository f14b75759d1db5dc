// The codes of points and centroids, with the norms that the bounds are made of.
#include "nearest_codes.h"

namespace deepclust::cpu {
namespace {

using namespace nearest;

template <typename T>
DC_INLINE void encode_points_inline(const Points<T>& points, int64_t begin, int64_t end) {
  const int64_t padded = round_up(points.d, 16), depth = points.depth();
  const Buffer<float> row(padded);
  const Buffer<int8_t> codes(padded);
  const float lost = lost_norm(padded);
  for (int64_t i = begin; i < end; ++i) {
    float square, largest;
    centre(points.x + i * points.d, points.mean, points.d, points.turned(), row.get(), square, largest);
    const float norm = std::sqrt(square) * kSafe + lost;
    CodeBounds& bounds = points.bounds[i];
    // y itself is x - mean rounded, and turned in float.
    bounds = {1.0f, norm, 2.0f * kRounding * norm + 2.0f * lost, 0};
    if (points.codes == nullptr) continue;
    int32_t total, squares;
    bounds.scale = largest / 127.0f;
    const float missed = round_to_codes(row.get(), padded, bounds.scale, codes.get(), total, squares);
    bounds.length = bounds.scale * std::sqrt(static_cast<float>(squares)) * kSafe;
    bounds.error += std::sqrt(missed) * kSafe;
    bounds.shift = static_cast<int32_t>(kCodeZero) * total;
    std::copy(codes.get(), codes.get() + depth, points.codes + i * depth);
  }
}

template <typename T>
DC_INLINE void encode_centroids_inline(const Points<T>& points, CodedCentroids<T>& coded, int64_t block) {
  const int64_t d = points.d, padded = round_up(d, 16), depth = coded.depth;
  const int64_t first = block * kTileCols, width = std::min(kTileCols, coded.padded - first);
  const Buffer<float> rows(kTileCols * padded);
  const Buffer<int8_t> codes(padded);
  const float lost = lost_norm(padded), lost_half = lost_product(padded);
  uint8_t* panel = coded.panels.get() + (coded.int8 ? first * depth : 0);
  for (int64_t col = 0; col < width; ++col) {
    const int64_t k = first + col;
    float* row = rows.get() + col * padded;
    if (k >= coded.clusters) {  // nobody's candidate
      coded.half_low.get()[k] = coded.half_high.get()[k] = kInfinity;
      coded.scale.get()[k] = coded.code_error.get()[k] = coded.length.get()[k] = 0.0f;
      std::fill(row, row + padded, 0.0f);
      std::fill(codes.get(), codes.get() + padded, int8_t{0});
    } else {
      float square, largest, scale = 1.0f, missed = 0.0f;
      centre(coded.centroids + k * d, points.mean, d, points.turned(), row, square, largest);
      double half = 0.0;
      for (int64_t j = 0; j < d; ++j) {
        const double z = static_cast<double>(coded.centroids[k * d + j]) - static_cast<double>(points.mean[j]);
        half += 0.5 * z * z;
      }
      const float norm = std::sqrt(square) * kSafe + lost;
      if (coded.int8) {
        int32_t total, squares;
        scale = largest / 127.0f;
        missed = round_to_codes(row, padded, scale, codes.get(), total, squares);
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
    if (coded.int8)
      for (int64_t j = 0; j < depth; ++j)
        panel[j / 4 * width * 4 + col * 4 + j % 4] = static_cast<uint8_t>(codes.get()[j] + kCodeZero);
  }
  if (!coded.int8) {
    const Panels<float> panels{coded.float_panels.get(), d, coded.padded};
    lay_out(Matrix<const float>{rows.get(), d, width, 1, padded}, panels, first);
  }
}

}  // namespace

// One clone of every leaf for float and one for double: DC_CLONES does not go with templates.
#define DC_NEAREST_CODES(T)                                                                           \
  DC_CLONES void encode_points(const Points<T>& points, int64_t begin, int64_t end) {                 \
    encode_points_inline(points, begin, end);                                                         \
  }                                                                                                   \
  DC_CLONES void encode_centroids(const Points<T>& points, CodedCentroids<T>& coded, int64_t block) { \
    encode_centroids_inline(points, coded, block);                                                    \
  }

DC_NEAREST_CODES(float)
DC_NEAREST_CODES(double)

}  // namespace deepclust::cpu
