#include "lanes.h"

#include <limits>
#include <type_traits>

#include "../simd/lanes.h"

#if defined(DC_LEVELS)
#include <immintrin.h>
#endif

namespace deepclust::cpu {
namespace {

struct CostsOf {
  template <typename L, typename T>
  static DC_INLINE void run(bool squared, const T* x, const T* rows, int64_t row_stride, int64_t depth,
                            const int32_t* indices, int64_t count, T* costs) {
    constexpr int64_t kAhead = 4;  // rows lie anywhere: ask for their first lines early
    for (int64_t c = 0; c < count; ++c) {
      if (c + kAhead < count) {
        const char* next = reinterpret_cast<const char*>(rows + indices[c + kAhead] * row_stride);
        for (int64_t line = 0; line < std::min<int64_t>(8, depth * int64_t{sizeof(T)} / 64 + 1); ++line)
          __builtin_prefetch(next + line * 64);
      }
      const T* row = rows + indices[c] * row_stride;
      const T cost = squared ? squared_distance_of<L>(x, row, depth) : -pair_sum<L, false>(x, row, depth);
      costs[c] = cost == cost ? cost : std::numeric_limits<T>::infinity();
    }
  }
};

struct PanelNorms {
  template <typename L, typename T>
  static DC_INLINE void run(const Panels<T>& packed, int64_t first, double* norms) {
    if (packed.row_stride != 0) __builtin_unreachable();  // in panels: else g++ writes the loop twice
    const int64_t width = packed.width(first);
    const T* __restrict__ panel = packed.at(first);
    double sums[Panels<T>::kPanel] = {};
    for (int64_t k = 0; k < packed.depth; ++k, panel += width)
      for (int64_t r = 0; r < width; ++r) sums[r] += static_cast<double>(panel[r]) * static_cast<double>(panel[r]);
    for (int64_t r = 0; r < width; ++r) norms[r] = sums[r];
  }
};

struct AddColumns {
  template <typename L, typename T>
  static DC_INLINE void run(const Matrix<const T>& x, double* __restrict__ sums) {
    for (int64_t row = 0; row < x.rows; ++row) {
      const T* __restrict__ source = x.data + row * x.row_stride;
      for (int64_t k = 0; k < x.cols; ++k) sums[k] += static_cast<double>(source[k]);
    }
  }
};

// Counting is one pass of vectors, so halving an interval costs less than moving values about.
struct ReachedBy {
  template <typename L, typename T>
  static DC_INLINE T run(const T* __restrict__ values, int64_t count, int64_t least, int64_t most) {
    // In registers by hand: g++ does not reorder a minimum of floats.
    using V = typename Register<L, T>::type;
    constexpr int64_t kStep = Register<L, T>::kLanes;
    V lows = broadcast<L, T>(values[0]), highs = lows;
    int64_t c = 0;
    for (; c + kStep <= count; c += kStep) {
      const V v = load<L, T>(values + c);
      lows = v < lows ? v : lows;
      highs = v > highs ? v : highs;
    }
    T low = lows[0], high = highs[0];
    for (int64_t i = 1; i < kStep; ++i) {
      low = std::min<T>(low, lows[i]);
      high = std::max<T>(high, highs[i]);
    }
    for (; c < count; ++c) {
      low = std::min(low, values[c]);
      high = std::max(high, values[c]);
    }
    // All values reach `low`; fewer than `least` need reach `high`. Equal values end it after a few steps.
    for (int step = 0; step < 24; ++step) {
      const T middle = low + (high - low) / 2;
      if (!(middle > low)) break;
      int32_t reaching = 0;
      for (int64_t c = 0; c < count; ++c) reaching += values[c] >= middle ? 1 : 0;
      (reaching >= least ? low : high) = middle;
      if (reaching >= least && reaching <= most) break;
    }
    return low;
  }
};

struct KeepReaching {
  template <typename L, typename T>
  static DC_INLINE int64_t run(T* __restrict__ values, int32_t* __restrict__ indices, int64_t count, T limit) {
    int64_t kept = 0;
    for (int64_t c = 0; c < count; ++c) {
      const T value = values[c];
      values[kept] = value;
      indices[kept] = indices[c];
      kept += static_cast<int64_t>(value >= limit);
    }
    return kept;
  }
};

// The columns with dots[c] >= limit + offset[c], appended to `to`. Nearly always there is none in 64 bytes, and one
// branch says so.
template <typename L, typename T>
DC_INLINE void scan(const T* __restrict__ dots, int64_t count, T limit, const T* __restrict__ offset,
                    int32_t* __restrict__ to, int64_t& hits) {
  using R = Register<L, T>;
  using V = typename R::type;
  using Mask = decltype(V{} >= V{});
  const V limits = broadcast<L, T>(limit);
  for (int64_t begin = 0; begin < count; begin += kLanes<T>) {
    Mask reaches[R::kParts], any = {};
#pragma GCC unroll 4
    for (int p = 0; p < R::kParts; ++p) {
      const int64_t c = begin + p * R::kLanes;
      reaches[p] = load<L, T>(dots + c) >= limits + load<L, T>(offset + c);
      any |= reaches[p];
    }
    if (lanes_that_hold<L, T>(any) == 0) continue;
#pragma GCC unroll 4
    for (int p = 0; p < R::kParts; ++p)
      for (uint32_t bits = lanes_that_hold<L, T>(reaches[p]); bits != 0; bits &= bits - 1)
        to[hits++] = static_cast<int32_t>(begin + p * R::kLanes + __builtin_ctz(bits));
  }
}

struct FilterRow {
  template <typename L, typename T>
  static DC_INLINE Filtered run(const T* __restrict__ dots, int64_t count, T row_limit, T row_offset,
                                const T* __restrict__ col_limit, const T* __restrict__ col_offset,
                                int32_t* __restrict__ row_found, int32_t* __restrict__ col_found) {
    Filtered found;
    scan<L>(dots, count, row_limit, col_offset, row_found, found.for_row);
    if (col_limit != nullptr) scan<L>(dots, count, row_offset, col_limit, col_found, found.for_cols);
    return found;
  }
};

#if defined(DC_LEVELS)
#define DC_WIDE_FILTER 1
#define DC_AVX512 __attribute__((target("avx512f,avx512vl")))

// The comparison of one vector, and its hits as compressed column numbers.
template <typename T>
struct Wide;
template <>
struct Wide<float> {
  DC_AVX512 static DC_INLINE uint32_t reaching(const float* dots, float limit, const float* offset) {
    return _mm512_cmp_ps_mask(_mm512_loadu_ps(dots), _mm512_add_ps(_mm512_set1_ps(limit), _mm512_loadu_ps(offset)),
                              _CMP_GE_OQ);
  }
  DC_AVX512 static DC_INLINE void keep(uint32_t hits, int64_t column, int32_t* to) {
    const __m512i iota = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i columns = _mm512_add_epi32(iota, _mm512_set1_epi32(static_cast<int>(column)));
    _mm512_storeu_si512(to, _mm512_maskz_compress_epi32(static_cast<__mmask16>(hits), columns));
  }
};
template <>
struct Wide<double> {
  DC_AVX512 static DC_INLINE uint32_t reaching(const double* dots, double limit, const double* offset) {
    return _mm512_cmp_pd_mask(_mm512_loadu_pd(dots), _mm512_add_pd(_mm512_set1_pd(limit), _mm512_loadu_pd(offset)),
                              _CMP_GE_OQ);
  }
  DC_AVX512 static DC_INLINE void keep(uint32_t hits, int64_t column, int32_t* to) {
    const __m256i iota = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i columns = _mm256_add_epi32(iota, _mm256_set1_epi32(static_cast<int>(column)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                        _mm256_maskz_compress_epi32(static_cast<__mmask8>(hits), columns));
  }
};

// Three vectors at a time: nearly always none of them has a hit, and one branch says so.
template <bool kColumns, typename T>
DC_AVX512 Filtered filter_wide(const T* dots, int64_t count, T row_limit, T row_offset, const T* col_limit,
                               const T* col_offset, int32_t* row_found, int32_t* col_found) {
  constexpr int64_t kStep = kLanes<T>;
  Filtered found;
  int64_t c = 0;
  const auto look = [&](auto vectors) DC_AVX512 DC_INLINE_LAMBDA {
    constexpr int kVectors = decltype(vectors)::value;
    uint32_t row_hits[kVectors], col_hits[kVectors], any_row = 0, any_col = 0;
    for (int v = 0; v < kVectors; ++v) {
      const int64_t at = c + v * kStep;
      any_row |= row_hits[v] = Wide<T>::reaching(dots + at, row_limit, col_offset + at);
      if constexpr (kColumns) any_col |= col_hits[v] = Wide<T>::reaching(dots + at, row_offset, col_limit + at);
    }
    if (any_row != 0)
      for (int v = 0; v < kVectors; ++v) {
        Wide<T>::keep(row_hits[v], c + v * kStep, row_found + found.for_row);
        found.for_row += __builtin_popcount(row_hits[v]);
      }
    if (any_col != 0)
      for (int v = 0; v < kVectors; ++v) {
        Wide<T>::keep(col_hits[v], c + v * kStep, col_found + found.for_cols);
        found.for_cols += __builtin_popcount(col_hits[v]);
      }
    c += kVectors * kStep;
  };
  while (c + 3 * kStep <= count) look(std::integral_constant<int, 3>{});
  while (c < count) look(std::integral_constant<int, 1>{});
  return found;
}

#endif

}  // namespace

template <typename T>
void costs_of(bool squared_distance, const T* x, const T* rows, int64_t row_stride, int64_t depth,
              const int32_t* indices, int64_t count, T* costs) {
  dispatch<CostsOf>(squared_distance, x, rows, row_stride, depth, indices, count, costs);
}
template <typename T>
T reached_by(const T* values, int64_t count, int64_t least, int64_t most) {
  return dispatch<ReachedBy>(values, count, least, most);
}
template <typename T>
int64_t keep_reaching(T* values, int32_t* indices, int64_t count, T limit) {
  return dispatch<KeepReaching>(values, indices, count, limit);
}
template <typename T>
void panel_norms(const Panels<T>& packed, int64_t first, double* norms) {
  dispatch<PanelNorms>(packed, first, norms);
}
template <typename T>
void add_columns(const Matrix<const T>& x, double* sums) {
  dispatch<AddColumns>(x, sums);
}
template <typename T>
Filtered filter_row(const T* dots, int64_t count, T row_limit, T row_offset, const T* col_limit, const T* col_offset,
                    int32_t* row_found, int32_t* col_found) {
#if defined(DC_WIDE_FILTER)
  if (simd_level() == Level::avx512)
    return (col_limit != nullptr ? filter_wide<true, T> : filter_wide<false, T>)(dots, count, row_limit, row_offset,
                                                                                 col_limit, col_offset, row_found,
                                                                                 col_found);
#endif
  return dispatch<FilterRow>(dots, count, row_limit, row_offset, col_limit, col_offset, row_found, col_found);
}

template void costs_of(bool, const float*, const float*, int64_t, int64_t, const int32_t*, int64_t, float*);
template void costs_of(bool, const double*, const double*, int64_t, int64_t, const int32_t*, int64_t, double*);
template float reached_by(const float*, int64_t, int64_t, int64_t);
template double reached_by(const double*, int64_t, int64_t, int64_t);
template int64_t keep_reaching(float*, int32_t*, int64_t, float);
template int64_t keep_reaching(double*, int32_t*, int64_t, double);
template void panel_norms(const Panels<float>&, int64_t, double*);
template void panel_norms(const Panels<double>&, int64_t, double*);
template void add_columns(const Matrix<const float>&, double*);
template void add_columns(const Matrix<const double>&, double*);
template Filtered filter_row(const float*, int64_t, float, float, const float*, const float*, int32_t*, int32_t*);
template Filtered filter_row(const double*, int64_t, double, double, const double*, const double*, int32_t*, int32_t*);

}  // namespace deepclust::cpu
