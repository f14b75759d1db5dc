#include "knn_codes.h"

#include "../../common/buffer.h"
#include "row_codes.h"

namespace deepclust::cpu {
namespace {

double square_of(const float* row, int64_t d) {
  double sum = 0;
  for (int64_t k = 0; k < d; ++k) sum += static_cast<double>(row[k]) * static_cast<double>(row[k]);
  return sum;
}

template <typename L, typename Code>
DC_INLINE void code_rows_as(const Matrix<const float>& x, const float* mean, float limit, const Panels<float>& codes,
                            int64_t first, CodeFacts* facts) {
  const int64_t padded = round_up(x.cols, 16);
  constexpr int64_t kSteps = sizeof(float) / sizeof(Code);
  const Buffer<float> turned(padded);
  const Buffer<Code> bytes(kSteps * codes.depth);
  std::fill(bytes.get(), bytes.get() + kSteps * codes.depth, Code{0});
  for (int64_t r = 0; r < x.rows; ++r) {
    const float* const row = x.data + r * x.row_stride;
    float square, largest;
    centre<L>(row, mean, x.cols, true, turned.get(), square, largest);
    CodeFacts& fact = facts[r];
    fact.norm = square;
    if (!std::isfinite(fact.norm)) continue;
    fact.whole = square_of(row, x.cols);
    int32_t total, squares;
    fact.scale = largest > 0x1p-100f ? largest / limit : 0.0f;  // 1 / scale must be finite
    const float missed = round_to_codes<L>(turned.get(), padded, fact.scale, limit, bytes.get(), total, squares);
    const double scale = fact.scale, norm = std::sqrt(fact.norm);
    fact.half = 0.5 * scale * scale * squares;
    fact.error = kSafe * (2 * kRounding * norm + std::sqrt(static_cast<double>(missed)));
    fact.shift = sizeof(Code) == 1 ? 128 * total : 0;
    float* to = codes.at(first + r);
    const int64_t width = codes.width(first + r);
    for (int64_t k = 0; k < codes.depth; ++k) __builtin_memcpy(to + k * width, bytes.get() + kSteps * k, 4);
  }
}

struct CodeRows {
  template <typename L>
  static DC_INLINE void run(const Matrix<const float>& x, const float* mean, int32_t limit, const Panels<float>& codes,
                            int64_t first, CodeFacts* facts) {
    if (limit == 127)
      code_rows_as<L, int8_t>(x, mean, 127.0f, codes, first, facts);
    else
      code_rows_as<L, int16_t>(x, mean, static_cast<float>(limit), codes, first, facts);
  }
};

struct CodeRowsIn {
  template <typename L>
  static DC_INLINE void run(const Subspace& space, const Matrix<const float>& x, const float* mean, int32_t limit,
                            const Panels<float>& codes, int64_t first, CodeFacts* facts) {
    const int64_t padded = round_up(x.cols, 16), width = space.width();
    const Buffer<float> y(x.rows * padded), z(x.rows * width), origin(width), squares(x.rows), errors(x.rows);
    float largest;
    for (int64_t r = 0; r < x.rows; ++r)
      centre<L>(x.data + r * x.row_stride, mean, x.cols, false, y.get() + r * padded, squares.get()[r], largest);
    space.project(y.get(), x.rows, padded, z.get());
    std::fill(origin.get(), origin.get() + width, 0.0f);
    for (int64_t r = 0; r < x.rows; ++r) {
      float* const row = z.get() + r * width;
      float within;
      row[width - 1] = 0.0f;
      measure<L>(row, width, within, largest);
      const Subspace::Outside outside = space.outside(squares.get()[r], within);
      row[width - 1] = outside.length;
      errors.get()[r] = outside.error;
    }
    code_rows_as<L, int16_t>(Matrix<const float>{z.get(), x.rows, width, width, 1}, origin.get(),
                             static_cast<float>(limit), codes, first, facts);
    for (int64_t r = 0; r < x.rows; ++r) {
      if (!std::isfinite(facts[r].norm)) continue;
      facts[r].whole = square_of(x.data + r * x.row_stride, x.cols);
      facts[r].error += static_cast<double>(errors.get()[r]);
    }
  }
};

}  // namespace

void code_rows_in(const Subspace& space, const Matrix<const float>& x, const float* mean, int32_t limit,
                  const Panels<float>& codes, int64_t first, CodeFacts* facts) {
  dispatch<CodeRowsIn>(space, x, mean, limit, codes, first, facts);
}

void code_rows(const Matrix<const float>& x, const float* mean, int32_t limit, const Panels<float>& codes,
               int64_t first, CodeFacts* facts) {
  dispatch<CodeRows>(x, mean, limit, codes, first, facts);
}

}  // namespace deepclust::cpu
