#include "cluster_sums_kernel.h"

namespace deepclust::cpu {
namespace {

using Doubles = VectorOf<double>::type;
using Longs = VectorOf<double>::mask;
constexpr int64_t kL = kLanes<double>;

template <typename T>
DC_INLINE void load_doubles(const T* from, int64_t count, Doubles& out) {
  typedef T Narrow __attribute__((vector_size(sizeof(T) * kL)));
  Narrow vector = {};
  if (count >= kL)
    __builtin_memcpy(&vector, from, sizeof(Narrow));
  else
    for (int64_t i = 0; i < count; ++i) vector[i] = from[i];
  out = __builtin_convertvector(vector, Doubles);
}

template <typename T>
DC_INLINE void column_stats_inline(const T* x, int64_t d, int64_t begin, int64_t end, const ColumnStats<T>& stats) {
  double* __restrict__ sum = stats.sum;
  T* __restrict__ least = stats.least;
  T* __restrict__ largest = stats.largest;
  for (int64_t j = 0; j < d; ++j) {
    sum[j] = 0.0;
    least[j] = largest[j] = x[begin * d + j];
  }
  for (int64_t i = begin; i < end; ++i) {
    const T* __restrict__ row = x + i * d;
    for (int64_t j = 0; j < d; ++j) {
      sum[j] += static_cast<double>(row[j]);
      least[j] = row[j] < least[j] ? row[j] : least[j];
      largest[j] = row[j] > largest[j] ? row[j] : largest[j];
    }
  }
}

template <typename T>
DC_INLINE void add_moves_inline(const Matrix<const T>& x, const T* mean, const double* scale, const Move* moves,
                                int64_t count, int64_t first, int64_t last, int64_t* sums, int64_t ld) {
  Doubles centre[kSumColumns / kL], factor[kSumColumns / kL];
  const int64_t vectors = (last - first + kL - 1) / kL;
  for (int64_t v = 0; v < vectors; ++v) {
    load_doubles(mean + first + v * kL, last - first - v * kL, centre[v]);
    load_doubles(scale + first + v * kL, last - first - v * kL, factor[v]);
  }
  constexpr int64_t kAhead = 8;  // rows that moved lie anywhere: ask for them early
  for (int64_t m = 0; m < count; ++m) {
    const Move& move = moves[m];
    if (m + kAhead < count)
      for (int64_t j = first; j < last; j += 64 / static_cast<int64_t>(sizeof(T)))
        __builtin_prefetch(x.data + moves[m + kAhead].point * x.row_stride + j);
    const T* row = x.data + move.point * x.row_stride + first;
    int64_t* to = sums + move.to * ld + first;
    int64_t* from = move.from < 0 ? nullptr : sums + move.from * ld + first;
    for (int64_t v = 0; v < vectors; ++v) {
      Doubles value;
      load_doubles(row + v * kL, last - first - v * kL, value);
      const Doubles shifted = (value - centre[v]) * factor[v] + kFixedPointMagic;
      Longs whole, sum;
      __builtin_memcpy(&whole, &shifted, sizeof(whole));
      whole -= kFixedPointBits;
      __builtin_memcpy(&sum, to + v * kL, sizeof(sum));
      sum += whole;
      __builtin_memcpy(to + v * kL, &sum, sizeof(sum));
      if (from == nullptr) continue;
      __builtin_memcpy(&sum, from + v * kL, sizeof(sum));
      sum -= whole;
      __builtin_memcpy(from + v * kL, &sum, sizeof(sum));
    }
  }
}

template <typename T>
DC_INLINE double centred_squares_inline(const T* x, const T* mean, int64_t d, int64_t begin, int64_t end) {
  double total = 0.0;
  for (int64_t i = begin; i < end; ++i) {
    Doubles sum = {};
    for (int64_t j = 0; j < d; j += kL) {
      Doubles value, centre;
      load_doubles(x + i * d + j, d - j, value);
      load_doubles(mean + j, d - j, centre);
      value -= centre;
      sum += value * value;
    }
    for (int64_t lane = 0; lane < kL; ++lane) total += sum[lane];
  }
  return total;
}

}  // namespace

DC_CLONES void column_stats(const float* x, int64_t d, int64_t begin, int64_t end, const ColumnStats<float>& stats) {
  column_stats_inline(x, d, begin, end, stats);
}
DC_CLONES void column_stats(const double* x, int64_t d, int64_t begin, int64_t end, const ColumnStats<double>& stats) {
  column_stats_inline(x, d, begin, end, stats);
}
DC_CLONES void add_moves(const Matrix<const float>& x, const float* mean, const double* scale, const Move* moves,
                         int64_t count, int64_t first, int64_t last, int64_t* sums, int64_t ld) {
  add_moves_inline(x, mean, scale, moves, count, first, last, sums, ld);
}
DC_CLONES void add_moves(const Matrix<const double>& x, const double* mean, const double* scale, const Move* moves,
                         int64_t count, int64_t first, int64_t last, int64_t* sums, int64_t ld) {
  add_moves_inline(x, mean, scale, moves, count, first, last, sums, ld);
}
DC_CLONES double centred_squares(const float* x, const float* mean, int64_t d, int64_t begin, int64_t end) {
  return centred_squares_inline(x, mean, d, begin, end);
}
DC_CLONES double centred_squares(const double* x, const double* mean, int64_t d, int64_t begin, int64_t end) {
  return centred_squares_inline(x, mean, d, begin, end);
}

}  // namespace deepclust::cpu
