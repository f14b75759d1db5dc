#include "knn_lanes.h"

#include <limits>
#include <type_traits>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace deepclust::cpu {
namespace {

template <typename T>
struct Lanes {
  typedef T type __attribute__((vector_size(64), may_alias));
  struct __attribute__((packed, may_alias)) Anywhere {
    type vector;
  };
};

// Four chains of vectors, then one of what is left, added pairwise in a fixed order.
template <bool kSquared, typename T>
DC_INLINE T cost_of(const T* __restrict__ a, const T* __restrict__ b, int64_t depth) {
  using V = typename Lanes<T>::type;
  using Anywhere = typename Lanes<T>::Anywhere;
  constexpr int64_t kStep = kLanes<T>;
  V sum[4] = {};
  const auto add = [](V& to, const V& x, const V& y) DC_INLINE_LAMBDA {
    if constexpr (kSquared) {
      const V difference = x - y;
      to += difference * difference;
    } else {
      to += x * y;
    }
  };
  const auto at = [](const T* p) DC_INLINE_LAMBDA { return reinterpret_cast<const Anywhere*>(p)->vector; };
  int64_t k = 0;
  for (; k + 4 * kStep <= depth; k += 4 * kStep)
    for (int64_t c = 0; c < 4; ++c) add(sum[c], at(a + k + c * kStep), at(b + k + c * kStep));
  for (; k + kStep <= depth; k += kStep) add(sum[0], at(a + k), at(b + k));
  if (k < depth) {
    V x = {}, y = {};
    __builtin_memcpy(&x, a + k, sizeof(T) * static_cast<size_t>(depth - k));
    __builtin_memcpy(&y, b + k, sizeof(T) * static_cast<size_t>(depth - k));
    add(sum[1], x, y);
  }
  alignas(64) T lanes[kStep];
  *reinterpret_cast<V*>(lanes) = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  for (int64_t half = kStep / 2; half > 0; half /= 2)
    for (int64_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return kSquared ? lanes[0] : -lanes[0];
}

template <typename T>
DC_INLINE void costs_inline(bool squared, const T* x, const T* rows, int64_t row_stride, int64_t depth,
                            const int32_t* indices, int64_t count, T* costs) {
  constexpr int64_t kAhead = 4;  // rows lie anywhere: ask for their first lines early
  for (int64_t c = 0; c < count; ++c) {
    if (c + kAhead < count) {
      const char* next = reinterpret_cast<const char*>(rows + indices[c + kAhead] * row_stride);
      for (int64_t line = 0; line < std::min<int64_t>(8, depth * int64_t{sizeof(T)} / 64 + 1); ++line)
        __builtin_prefetch(next + line * 64);
    }
    const T* row = rows + indices[c] * row_stride;
    const T cost = squared ? cost_of<true>(x, row, depth) : cost_of<false>(x, row, depth);
    costs[c] = cost == cost ? cost : std::numeric_limits<T>::infinity();
  }
}

template <typename T>
DC_INLINE void panel_norms_inline(const PackedRows<T>& packed, int64_t first, double* norms) {
  const int64_t width = packed.width(first);
  const T* __restrict__ panel = packed.at(first);
  double sums[PackedRows<T>::kPanel] = {};
  for (int64_t k = 0; k < packed.depth; ++k, panel += width)
    for (int64_t r = 0; r < width; ++r) sums[r] += static_cast<double>(panel[r]) * static_cast<double>(panel[r]);
  for (int64_t r = 0; r < width; ++r) norms[r] = sums[r];
}

template <typename T>
DC_INLINE void add_columns_inline(const Matrix<const T>& x, double* __restrict__ sums) {
  for (int64_t row = 0; row < x.rows; ++row) {
    const T* __restrict__ source = x.data + row * x.row_stride;
    for (int64_t k = 0; k < x.cols; ++k) sums[k] += static_cast<double>(source[k]);
  }
}

// Counting is one pass of vectors, so halving an interval costs less than moving values about.
template <typename T>
DC_INLINE T reached_by_inline(const T* __restrict__ values, int64_t count, int64_t least, int64_t most) {
  // In vectors by hand: g++ does not reorder a minimum of floats.
  using V = typename Lanes<T>::type;
  constexpr int64_t kStep = kLanes<T>;
  V lows = V{} + values[0], highs = lows;
  int64_t c = 0;
  for (; c + kStep <= count; c += kStep) {
    const V v = reinterpret_cast<const typename Lanes<T>::Anywhere*>(values + c)->vector;
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

template <typename T>
DC_INLINE int64_t keep_reaching_inline(T* __restrict__ values, int32_t* __restrict__ indices, int64_t count, T limit) {
  int64_t kept = 0;
  for (int64_t c = 0; c < count; ++c) {
    const T value = values[c];
    values[kept] = value;
    indices[kept] = indices[c];
    kept += static_cast<int64_t>(value >= limit);
  }
  return kept;
}

// Whether any column of a vector passes is asked without a branch; only then is each looked at.
template <typename T>
DC_INLINE Filtered filter_row_inline(const T* __restrict__ dots, int64_t count, T row_limit, T row_offset,
                                     const T* __restrict__ col_limit, const T* __restrict__ col_offset,
                                     int32_t* __restrict__ row_found, int32_t* __restrict__ col_found) {
  Filtered found;
  const auto scan = [&](T limit, const T* __restrict__ offset, int32_t* __restrict__ to, int64_t& hits)
                        DC_INLINE_LAMBDA {
                          for (int64_t begin = 0; begin < count; begin += kLanes<T>) {
                            int any = 0;
                            for (int64_t c = begin; c < begin + kLanes<T>; ++c)
                              any |= static_cast<int>(dots[c] >= limit + offset[c]);
                            if (any == 0) continue;
                            for (int64_t c = begin; c < begin + kLanes<T>; ++c) {
                              to[hits] = static_cast<int32_t>(c);
                              hits += static_cast<int64_t>(dots[c] >= limit + offset[c]);
                            }
                          }
                        };
  scan(row_limit, col_offset, row_found, found.for_row);
  if (col_limit != nullptr) scan(row_offset, col_limit, col_found, found.for_cols);
  return found;
}

#if defined(__x86_64__) && defined(__GNUC__)
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

const bool kWideFilter = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl");
#endif

#define DC_FILTER_PLAIN(T)                                                                                     \
  DC_CLONES Filtered filter_plain(const T* dots, int64_t count, T row_limit, T row_offset, const T* col_limit, \
                                  const T* col_offset, int32_t* row_found, int32_t* col_found) {               \
    return filter_row_inline(dots, count, row_limit, row_offset, col_limit, col_offset, row_found, col_found); \
  }
DC_FILTER_PLAIN(float)
DC_FILTER_PLAIN(double)
#undef DC_FILTER_PLAIN

template <typename T>
Filtered filter_dispatch(const T* dots, int64_t count, T row_limit, T row_offset, const T* col_limit,
                         const T* col_offset, int32_t* row_found, int32_t* col_found) {
#if defined(DC_WIDE_FILTER)
  if (kWideFilter)
    return (col_limit != nullptr ? filter_wide<true, T> : filter_wide<false, T>)(dots, count, row_limit, row_offset,
                                                                                 col_limit, col_offset, row_found,
                                                                                 col_found);
#endif
  return filter_plain(dots, count, row_limit, row_offset, col_limit, col_offset, row_found, col_found);
}

}  // namespace

#define DC_KNN_LANES(T)                                                                                        \
  DC_CLONES void costs_of(bool squared_distance, const T* x, const T* rows, int64_t row_stride, int64_t depth, \
                          const int32_t* indices, int64_t count, T* costs) {                                   \
    costs_inline(squared_distance, x, rows, row_stride, depth, indices, count, costs);                         \
  }                                                                                                            \
  DC_CLONES T reached_by(const T* values, int64_t count, int64_t least, int64_t most) {                        \
    return reached_by_inline(values, count, least, most);                                                      \
  }                                                                                                            \
  DC_CLONES int64_t keep_reaching(T* values, int32_t* indices, int64_t count, T limit) {                       \
    return keep_reaching_inline(values, indices, count, limit);                                                \
  }                                                                                                            \
  DC_CLONES void panel_norms(const PackedRows<T>& packed, int64_t first, double* norms) {                      \
    panel_norms_inline(packed, first, norms);                                                                  \
  }                                                                                                            \
  DC_CLONES void add_columns(const Matrix<const T>& x, double* sums) {                                         \
    add_columns_inline(x, sums);                                                                               \
  }                                                                                                            \
  Filtered filter_row(const T* dots, int64_t count, T row_limit, T row_offset, const T* col_limit,             \
                      const T* col_offset, int32_t* row_found, int32_t* col_found) {                           \
    return filter_dispatch(dots, count, row_limit, row_offset, col_limit, col_offset, row_found, col_found);   \
  }
DC_KNN_LANES(float)
DC_KNN_LANES(double)
#undef DC_KNN_LANES

}  // namespace deepclust::cpu
