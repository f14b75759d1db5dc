#include "bank_tile.h"

#include "../../common/half.h"
#include "../gemm/tile.h"
#include "../simd/exponential.h"

namespace deepclust::cpu {
namespace {

// A panel of so much depth and the strips that meet it fit the first-level cache.
constexpr int64_t kPieceDepth = 128;

// A register of float16 numbers, by choices instead of the branches of read(Half).
template <typename L>
DC_INLINE typename Register<L, float>::type read_lanes(const Half* from) {
  using V = typename Register<L, float>::type;
  using I = typename Register<L, int32_t>::type;
  typedef uint16_t Stored __attribute__((vector_size(L::kRegisterBytes / 2), may_alias));
  struct __attribute__((packed, may_alias)) Anywhere {
    Stored vector;
  };
  const I bits = __builtin_convertvector(reinterpret_cast<const Anywhere*>(from)->vector, I);
  const I sign = (bits & 0x8000) << 16, magnitude = bits & 0x7fff, shifted = (magnitude << 13) + (112 << 23);
  const I normal = shifted + ((magnitude >= 0x7c00) & (112 << 23));  // the exponent of infinity and NaN: 31 to 255
  const I subnormal = (I)(__builtin_convertvector(magnitude, V) * 0x1p-24f);
  return (V)(sign | (magnitude < 0x400 ? subnormal : normal));
}

struct ReadRows {
  template <typename L, typename S, typename T>
  static DC_INLINE void run(const Matrix<const S>& bank, T* __restrict__ out, int64_t ld) {
    for (int64_t r = 0; r < bank.rows; ++r, out += ld) {
      const S* __restrict__ row = bank.data + r * bank.row_stride;
      int64_t k = 0;
      if constexpr (std::is_same_v<S, Half> && std::is_same_v<T, float>) {
        constexpr int64_t kStep = Register<L, float>::kLanes;
        if (bank.col_stride == 1)
          for (; k + kStep <= bank.cols; k += kStep) store<L, float>(out + k, read_lanes<L>(row + k));
      }
      if (bank.col_stride == 1)
        for (; k < bank.cols; ++k) out[k] = static_cast<T>(read(row[k]));
      else
        for (; k < bank.cols; ++k) out[k] = static_cast<T>(read(row[k * bank.col_stride]));
    }
  }
};

// What a strip is: rows of A that meet one 64-byte vector of B on AVX2, and a whole panel elsewhere. AVX2 has 16
// registers: 6 rows by 2 of them are 12 sums that leave no column over, where tile.h's 4 by 3 would leave a third of
// 128.
template <typename L>
inline constexpr int64_t kStripRows = L::kLevel == Level::avx2 ? 6 : 8;

template <typename L, int M, typename T>
DC_INLINE void strip_tile(const Strip<T>& strip, const T* panel, int64_t width, bool accumulate, T* out, int64_t ldo) {
  if constexpr (L::kLevel == Level::avx2)
    register_tile<L, M, Register<L, T>::kParts>(strip, panel, width, accumulate, out, ldo);
  else
    with_vectors<T>(width, [&](auto vectors) DC_INLINE_LAMBDA {
      vector_tile<L, M, decltype(vectors)::value>(strip, panel, width, accumulate, out, ldo);
    });
}

// Memory that will be read soon: a few lines are asked for with each strip.
struct Ahead {
  const char* next = nullptr;
  const char* end = nullptr;
  DC_INLINE void fetch() {
    for (int line = 0; line < 8 && next < end; ++line, next += 64) __builtin_prefetch(next, 0, 2);
  }
};

// out [rows, b.cols] (+)= A B: a piece of B stays in the first-level cache while the strips of A pass. A's entry (m, k)
// lies at a.data[m * row_stride + k * depth_stride].
template <typename L, typename T>
DC_INLINE void strip_product(const Strip<T>& a, int64_t rows, const Panels<T>& b, bool accumulate, T* out, int64_t ldo,
                             Ahead ahead = {}) {
  constexpr int64_t kAcross = L::kLevel == Level::avx2 ? kLanes<T> : Panels<T>::kPanel;
  for (int64_t k = 0; k < a.depth; k += kPieceDepth) {
    const int64_t depth = std::min(kPieceDepth, a.depth - k);
    for (int64_t col = 0; col < b.cols; col += kAcross) {
      const int64_t width = b.width(col);
      const T* panel = b.at(col) + k * width;
      const auto strip = [&](int64_t row, auto count) DC_INLINE_LAMBDA {
        ahead.fetch();
        strip_tile<L, decltype(count)::value>(
            Strip<T>{a.data + row * a.row_stride + k * a.depth_stride, depth, a.depth_stride, a.row_stride}, panel,
            width, accumulate || k > 0, out + row * ldo + col, ldo);
      };
      int64_t row = 0;
      for (; row + kStripRows<L> <= rows; row += kStripRows<L>)
        strip(row, std::integral_constant<int, kStripRows<L>>{});
      if (row + 4 <= rows) {
        strip(row, std::integral_constant<int, 4>{});
        row += 4;
      }
      if (row + 2 <= rows) {
        strip(row, std::integral_constant<int, 2>{});
        row += 2;
      }
      if (row < rows) strip(row, std::integral_constant<int, 1>{});
    }
  }
}

struct BankLogits {
  template <typename L, typename T>
  static DC_INLINE void run(const Matrix<const T>& rows, const Panels<T>& queries, T* logits, int64_t ldl,
                            const char* next, const char* end) {
    strip_product<L>(Strip<T>{rows.data, rows.cols, 1, rows.row_stride}, rows.rows, queries, false, logits, ldl,
                     {next, end});
  }
};

// Sums of a block's rows, brought from the old largest logit to the new one.
template <typename L, typename T>
DC_INLINE void rescale(const BankTile<T>& tile, const BankSums<T>& sums) {
  for (int64_t q = 0; q < sums.queries; ++q) {
    const T factor = tile.factor[q], step = tile.step[q];
    if (factor == T(1)) continue;
    T* __restrict__ rows = sums.rows + q * sums.ld;
    if (sums.moment_rows != nullptr) {
      T* __restrict__ moments = sums.moment_rows + q * sums.ld;
      for (int64_t k = 0; k < sums.ld; ++k) moments[k] = factor * (moments[k] + step * rows[k]);
    }
    for (int64_t k = 0; k < sums.ld; ++k) rows[k] *= factor;
  }
}

struct BankWeights {
  template <typename L, bool kMoments, typename T>
  static DC_INLINE bool weigh(const BankTile<T>& tile, int64_t rows, const BankSums<T>& sums) {
    using V = typename Register<L, T>::type;
    constexpr int64_t kStep = Register<L, T>::kLanes;
    bool moved = false;
    for (int64_t q = 0; q < sums.queries; q += kStep) {
      T* __restrict__ logits = tile.logits + q;
      T* __restrict__ products = kMoments ? tile.products + q : nullptr;
      const V old = load<L, T>(sums.largest + q);
      V largest = old;
      for (int64_t r = 0; r < rows; ++r) {
        const V logit = load<L, T>(logits + r * tile.ldl);
        largest = logit > largest ? logit : largest;
      }
      V sum{}, moment{};
      for (int64_t r = 0; r < rows; ++r) {
        V x = load<L, T>(logits + r * tile.ldl) - largest;
        const V weight = exp2_lanes<L, T>(x);
        store<L, T>(logits + r * tile.ldl, weight);
        sum += weight;
        if constexpr (kMoments) {
          const V product = weight * x;
          store<L, T>(products + r * tile.ldl, product);
          moment += product;
        }
      }
      store<L, T>(sums.largest + q, largest);
      V step = old - largest;
      // Nothing was summed yet: a step from nowhere.
      step = old > kNoLogit<T> ? step : V{};
      store<L, T>(tile.step + q, step);
      store<L, T>(tile.factor + q, exp2_lanes<L, T>(step));
      // In double from here on: a chunk has thousands of tiles.
      for (int64_t i = 0; i < kStep; ++i) {
        const double factor = tile.factor[q + i];
        if (tile.factor[q + i] != T(1)) {
          moved = true;
          if constexpr (kMoments)
            sums.moment[q + i] =
                factor * (sums.moment[q + i] + static_cast<double>(tile.step[q + i]) * sums.sum[q + i]);
          sums.sum[q + i] *= factor;
        }
        sums.sum[q + i] += static_cast<double>(sum[i]);
        if constexpr (kMoments) sums.moment[q + i] += static_cast<double>(moment[i]);
      }
    }
    return moved;
  }
  template <typename L, typename T>
  static DC_INLINE void run(const BankTile<T>& tile, int64_t rows, const BankSums<T>& sums) {
    const bool moved = tile.products != nullptr ? weigh<L, true>(tile, rows, sums) : weigh<L, false>(tile, rows, sums);
    if (moved && sums.rows != nullptr) rescale<L>(tile, sums);
  }
};

struct AddWeightedRows {
  template <typename L, typename T>
  static DC_INLINE void run(const BankTile<T>& tile, const Panels<T>& rows, const BankSums<T>& sums) {
    strip_product<L>(Strip<T>{tile.logits, rows.depth, tile.ldl, 1}, sums.queries, rows, true, sums.rows, sums.ld);
    if (sums.moment_rows != nullptr)
      strip_product<L>(Strip<T>{tile.products, rows.depth, tile.ldl, 1}, sums.queries, rows, true, sums.moment_rows,
                       sums.ld);
  }
};

}  // namespace

template <typename S, typename T>
void read_rows(const Matrix<const S>& bank, T* out, int64_t ld) {
  dispatch<ReadRows>(bank, out, ld);
}
template <typename T>
void bank_logits(const Matrix<const T>& rows, const Panels<T>& queries, T* logits, int64_t ldl, const void* next,
                 int64_t next_bytes) {
  const char* const bytes = static_cast<const char*>(next);
  dispatch<BankLogits>(rows, queries, logits, ldl, bytes, bytes + next_bytes);
}
template <typename T>
void bank_weights(const BankTile<T>& tile, int64_t rows, const BankSums<T>& sums) {
  dispatch<BankWeights>(tile, rows, sums);
}
template <typename T>
void add_weighted_rows(const BankTile<T>& tile, const Panels<T>& rows, const BankSums<T>& sums) {
  dispatch<AddWeightedRows>(tile, rows, sums);
}

template void read_rows(const Matrix<const Half>&, float*, int64_t);
template void read_rows(const Matrix<const BFloat16>&, float*, int64_t);
template void read_rows(const Matrix<const float>&, float*, int64_t);
template void read_rows(const Matrix<const Half>&, double*, int64_t);
template void read_rows(const Matrix<const BFloat16>&, double*, int64_t);
template void read_rows(const Matrix<const float>&, double*, int64_t);
template void read_rows(const Matrix<const double>&, double*, int64_t);
template void bank_logits(const Matrix<const float>&, const Panels<float>&, float*, int64_t, const void*, int64_t);
template void bank_logits(const Matrix<const double>&, const Panels<double>&, double*, int64_t, const void*, int64_t);
template void bank_weights(const BankTile<float>&, int64_t, const BankSums<float>&);
template void bank_weights(const BankTile<double>&, int64_t, const BankSums<double>&);
template void add_weighted_rows(const BankTile<float>&, const Panels<float>&, const BankSums<float>&);
template void add_weighted_rows(const BankTile<double>&, const Panels<double>&, const BankSums<double>&);

}  // namespace deepclust::cpu
