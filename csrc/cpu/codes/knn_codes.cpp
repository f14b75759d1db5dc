#include "knn_codes.h"

#include "../../common/buffer.h"
#include "row_codes.h"

namespace deepclust::cpu {
namespace {

template <typename L, typename Code>
DC_INLINE void code_rows_as(const Matrix<const float>& x, const float* mean, float limit,
                            const PackedRows<float>& codes, int64_t first, CodeFacts* facts) {
  const int64_t padded = round_up(x.cols, 16);
  const Buffer<float> turned(padded);
  const Buffer<Code> bytes(padded);
  for (int64_t r = 0; r < x.rows; ++r) {
    const float* const row = x.data + r * x.row_stride;
    float square, largest;
    centre<L>(row, mean, x.cols, true, turned.get(), square, largest);
    CodeFacts& fact = facts[r];
    fact.norm = square;
    if (!std::isfinite(fact.norm)) continue;
    fact.whole = 0;
    for (int64_t k = 0; k < x.cols; ++k) fact.whole += static_cast<double>(row[k]) * static_cast<double>(row[k]);
    int32_t total, squares;
    fact.scale = largest > 0x1p-100f ? largest / limit : 0.0f;  // 1 / scale must be finite
    const float missed = round_to_codes<L>(turned.get(), padded, fact.scale, limit, bytes.get(), total, squares);
    const double scale = fact.scale, norm = std::sqrt(fact.norm);
    fact.half = 0.5 * scale * scale * squares;
    fact.error = kSafe * (2 * kRounding * norm + std::sqrt(static_cast<double>(missed)));
    fact.shift = sizeof(Code) == 1 ? 128 * total : 0;
    float* to = codes.at(first + r);
    const int64_t width = codes.width(first + r);
    constexpr int64_t kSteps = sizeof(float) / sizeof(Code);
    for (int64_t k = 0; k < codes.depth; ++k) __builtin_memcpy(to + k * width, bytes.get() + kSteps * k, 4);
  }
}

struct CodeRows {
  template <typename L>
  static DC_INLINE void run(const Matrix<const float>& x, const float* mean, int32_t limit,
                            const PackedRows<float>& codes, int64_t first, CodeFacts* facts) {
    if (limit == 127)
      code_rows_as<L, int8_t>(x, mean, 127.0f, codes, first, facts);
    else
      code_rows_as<L, int16_t>(x, mean, static_cast<float>(limit), codes, first, facts);
  }
};

}  // namespace

void code_rows(const Matrix<const float>& x, const float* mean, int32_t limit, const PackedRows<float>& codes,
               int64_t first, CodeFacts* facts) {
  dispatch<CodeRows>(x, mean, limit, codes, first, facts);
}

}  // namespace deepclust::cpu
