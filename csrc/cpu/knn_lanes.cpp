#include "knn_lanes.h"

#include <limits>

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
                            const Candidate<T>* candidates, int64_t count, T* costs) {
  constexpr int64_t kAhead = 4;  // rows lie anywhere: ask for their first lines early
  for (int64_t c = 0; c < count; ++c) {
    if (c + kAhead < count) {
      const char* next = reinterpret_cast<const char*>(rows + candidates[c + kAhead].index * row_stride);
      for (int64_t line = 0; line < std::min<int64_t>(8, depth * int64_t{sizeof(T)} / 64 + 1); ++line)
        __builtin_prefetch(next + line * 64);
    }
    const T* row = rows + candidates[c].index * row_stride;
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

// Whether any of `count` columns passes is one pass without a branch; only then is each looked at.
template <typename T>
DC_INLINE int64_t filter_row_inline(const T* __restrict__ dots, int64_t count, bool both, T row_limit, T row_offset,
                                    const T* __restrict__ col_limit, const T* __restrict__ col_offset,
                                    int32_t* __restrict__ found) {
  int64_t hits = 0;
  const auto passes = [&](int64_t c) DC_INLINE_LAMBDA {
    return static_cast<int>(dots[c] >= row_limit + col_offset[c]) |
           (static_cast<int>(both) & static_cast<int>(dots[c] >= row_offset + col_limit[c]));
  };
  for (int64_t begin = 0; begin < count; begin += kLanes<T>) {
    int any = 0;
    for (int64_t c = begin; c < begin + kLanes<T>; ++c) any |= passes(c);
    if (any == 0) continue;
    for (int64_t c = begin; c < begin + kLanes<T>; ++c) {
      found[hits] = static_cast<int32_t>(c);
      hits += passes(c);
    }
  }
  return hits;
}

#if defined(__x86_64__) && defined(__GNUC__)
#define DC_WIDE_FILTER 1
#define DC_AVX512 __attribute__((target("avx512f,avx512vl")))

// One load a vector of each operand; the rare hits leave as compressed column numbers.
template <bool kBoth>
DC_AVX512 int64_t filter_wide(const float* dots, int64_t count, float row_limit, float row_offset,
                              const float* col_limit, const float* col_offset, int32_t* found) {
  const __m512 limit = _mm512_set1_ps(row_limit), offset = _mm512_set1_ps(row_offset);
  const auto mask = [&](int64_t c) DC_AVX512 DC_INLINE_LAMBDA {
    const __m512 dot = _mm512_loadu_ps(dots + c);
    __mmask16 hit = _mm512_cmp_ps_mask(dot, _mm512_add_ps(limit, _mm512_loadu_ps(col_offset + c)), _CMP_GE_OQ);
    if constexpr (kBoth)
      hit |= _mm512_cmp_ps_mask(dot, _mm512_add_ps(offset, _mm512_loadu_ps(col_limit + c)), _CMP_GE_OQ);
    return hit;
  };
  const __m512i iota = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  int64_t hits = 0;
  const auto keep = [&](__mmask16 hit, int64_t c) DC_AVX512 DC_INLINE_LAMBDA {
    const __m512i columns = _mm512_add_epi32(iota, _mm512_set1_epi32(static_cast<int>(c)));
    _mm512_storeu_si512(found + hits, _mm512_maskz_compress_epi32(hit, columns));
    hits += __builtin_popcount(hit);
  };
  int64_t c = 0;
  for (; c + 48 <= count; c += 48) {
    const __mmask16 first = mask(c), second = mask(c + 16), third = mask(c + 32);
    if ((first | second | third) == 0) continue;
    keep(first, c);
    keep(second, c + 16);
    keep(third, c + 32);
  }
  for (; c < count; c += 16) keep(mask(c), c);
  return hits;
}

template <bool kBoth>
DC_AVX512 int64_t filter_wide(const double* dots, int64_t count, double row_limit, double row_offset,
                              const double* col_limit, const double* col_offset, int32_t* found) {
  const __m512d limit = _mm512_set1_pd(row_limit), offset = _mm512_set1_pd(row_offset);
  const __m256i iota = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  int64_t hits = 0;
  for (int64_t c = 0; c < count; c += 8) {
    const __m512d dot = _mm512_loadu_pd(dots + c);
    __mmask8 hit = _mm512_cmp_pd_mask(dot, _mm512_add_pd(limit, _mm512_loadu_pd(col_offset + c)), _CMP_GE_OQ);
    if constexpr (kBoth)
      hit |= _mm512_cmp_pd_mask(dot, _mm512_add_pd(offset, _mm512_loadu_pd(col_limit + c)), _CMP_GE_OQ);
    if (hit == 0) continue;
    const __m256i columns = _mm256_add_epi32(iota, _mm256_set1_epi32(static_cast<int>(c)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(found + hits), _mm256_maskz_compress_epi32(hit, columns));
    hits += __builtin_popcount(hit);
  }
  return hits;
}

const bool kWideFilter = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl");
#endif

DC_CLONES int64_t filter_plain(const float* dots, int64_t count, bool both, float row_limit, float row_offset,
                               const float* col_limit, const float* col_offset, int32_t* found) {
  return filter_row_inline(dots, count, both, row_limit, row_offset, col_limit, col_offset, found);
}
DC_CLONES int64_t filter_plain(const double* dots, int64_t count, bool both, double row_limit, double row_offset,
                               const double* col_limit, const double* col_offset, int32_t* found) {
  return filter_row_inline(dots, count, both, row_limit, row_offset, col_limit, col_offset, found);
}

template <typename T>
int64_t filter_dispatch(const T* dots, int64_t count, bool both, T row_limit, T row_offset, const T* col_limit,
                        const T* col_offset, int32_t* found) {
#if defined(DC_WIDE_FILTER)
  if (kWideFilter)
    return both ? filter_wide<true>(dots, count, row_limit, row_offset, col_limit, col_offset, found)
                : filter_wide<false>(dots, count, row_limit, row_offset, col_limit, col_offset, found);
#endif
  return filter_plain(dots, count, both, row_limit, row_offset, col_limit, col_offset, found);
}

}  // namespace

#define DC_KNN_LANES(T)                                                                                        \
  DC_CLONES void costs_of(bool squared_distance, const T* x, const T* rows, int64_t row_stride, int64_t depth, \
                          const Candidate<T>* candidates, int64_t count, T* costs) {                           \
    costs_inline(squared_distance, x, rows, row_stride, depth, candidates, count, costs);                      \
  }                                                                                                            \
  DC_CLONES void panel_norms(const PackedRows<T>& packed, int64_t first, double* norms) {                      \
    panel_norms_inline(packed, first, norms);                                                                  \
  }                                                                                                            \
  DC_CLONES void add_columns(const Matrix<const T>& x, double* sums) {                                         \
    add_columns_inline(x, sums);                                                                               \
  }                                                                                                            \
  int64_t filter_row(const T* dots, int64_t count, bool both, T row_limit, T row_offset, const T* col_limit,   \
                     const T* col_offset, int32_t* found) {                                                    \
    return filter_dispatch(dots, count, both, row_limit, row_offset, col_limit, col_offset, found);            \
  }
DC_KNN_LANES(float)
DC_KNN_LANES(double)
#undef DC_KNN_LANES

}  // namespace deepclust::cpu
