#include "knn_codes.h"

#include "nearest_codes.h"

namespace deepclust::cpu {

DC_CLONES void code_rows(const Matrix<const float>& x, const float* mean, const PackedRows<float>& codes, int64_t first,
                         CodeFacts* facts) {
  const int64_t padded = round_up(x.cols, 16);
  const Buffer<float> turned(padded);
  const Buffer<int8_t> bytes(padded);
  for (int64_t r = 0; r < x.rows; ++r) {
    float square, largest;
    nearest::centre(x.data + r * x.row_stride, mean, x.cols, true, turned.get(), square, largest);
    CodeFacts& fact = facts[r];
    fact.norm = square;
    if (!std::isfinite(fact.norm)) continue;
    int32_t total, squares;
    fact.scale = largest > 0x1p-100f ? largest / 127.0f : 0.0f;  // 1 / scale must be finite
    const float missed = nearest::round_to_codes(turned.get(), padded, fact.scale, bytes.get(), total, squares);
    const double scale = fact.scale, norm = std::sqrt(fact.norm);
    fact.half = 0.5 * scale * scale * squares;
    fact.error = nearest::kSafe * (2 * nearest::kRounding * norm + std::sqrt(static_cast<double>(missed)));
    fact.shift = 128 * total;
    float* to = codes.at(first + r);
    const int64_t width = codes.width(first + r);
    for (int64_t k = 0; k < codes.depth; ++k) __builtin_memcpy(to + k * width, bytes.get() + 4 * k, 4);
  }
}

}  // namespace deepclust::cpu
