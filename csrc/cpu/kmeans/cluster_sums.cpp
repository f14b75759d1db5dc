#include "cluster_sums.h"

namespace deepclust::cpu {
namespace {

template <typename L>
using Doubles = typename Register<L, double>::type;

template <typename L, typename T>
DC_INLINE void load_doubles(const T* from, int64_t count, Doubles<L>& out) {
  constexpr int64_t kL = Register<L, double>::kLanes;
  typedef T Narrow __attribute__((vector_size(sizeof(T) * kL)));
  Narrow vector = {};
  if (count >= kL) {
    struct __attribute__((packed, may_alias)) Anywhere {
      Narrow vector;
    };
    vector = reinterpret_cast<const Anywhere*>(from)->vector;
  } else {
    for (int64_t i = 0; i < count; ++i) vector[i] = from[i];
  }
  out = __builtin_convertvector(vector, Doubles<L>);
}

struct ColumnStatistics {
  template <typename L, typename T>
  static DC_INLINE void run(const T* x, int64_t d, int64_t begin, int64_t end, const ColumnStats<T>& stats) {
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
};

struct AddMoves {
  template <typename L, typename T>
  static DC_INLINE void run(const Matrix<const T>& x, const T* mean, const double* scale, const double* weights,
                            const Move* moves, int64_t count, int64_t first, int64_t last, int64_t* sums, int64_t ld) {
    using Longs = typename Register<L, int64_t>::type;
    constexpr int64_t kL = Register<L, double>::kLanes;
    Doubles<L> centre[kSumColumns / kL], factor[kSumColumns / kL];
    const int64_t vectors = ceil_div(last - first, kL);
    for (int64_t v = 0; v < vectors; ++v) {
      load_doubles<L>(mean + first + v * kL, last - first - v * kL, centre[v]);
      load_doubles<L>(scale + first + v * kL, last - first - v * kL, factor[v]);
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
      const Doubles<L> weight = broadcast<L, double>(weights == nullptr ? 1.0 : weights[move.point]);
      for (int64_t v = 0; v < vectors; ++v) {
        Doubles<L> value;
        load_doubles<L>(row + v * kL, last - first - v * kL, value);
        // The weight first, for the factor is a power of two: a fused multiply-add rounds no other way.
        const Doubles<L> shifted = (value - centre[v]) * weight * factor[v] + kFixedPointMagic;
        const Longs whole = (Longs)shifted - kFixedPointBits;  // a cast between vectors of one size keeps the bits
        store<L, int64_t>(to + v * kL, load<L, int64_t>(to + v * kL) + whole);
        if (from == nullptr) continue;
        store<L, int64_t>(from + v * kL, load<L, int64_t>(from + v * kL) - whole);
      }
    }
  }
};

struct CentredSquares {
  template <typename L, typename T>
  static DC_INLINE double run(const T* x, const T* mean, const double* weights, int64_t d, int64_t begin, int64_t end) {
    constexpr int64_t kL = Register<L, double>::kLanes, kParts = Register<L, double>::kParts;
    double total = 0.0;
    for (int64_t i = begin; i < end; ++i) {
      Doubles<L> sum[kParts] = {};
      for (int64_t j = 0; j < d; j += kLanes<double>)
        for (int64_t p = 0; p < kParts; ++p) {
          const int64_t at = j + p * kL;
          Doubles<L> value, centre;
          load_doubles<L>(x + i * d + at, d - at, value);
          load_doubles<L>(mean + at, d - at, centre);
          value -= centre;
          sum[p] += value * value;
        }
      double row = 0.0;
      for (int64_t p = 0; p < kParts; ++p)
        for (int64_t lane = 0; lane < kL; ++lane) row += sum[p][lane];
      total += weights == nullptr ? row : weights[i] * row;
    }
    return total;
  }
};

}  // namespace

template <typename T>
void column_stats(const T* x, int64_t d, int64_t begin, int64_t end, const ColumnStats<T>& stats) {
  dispatch<ColumnStatistics>(x, d, begin, end, stats);
}
template <typename T>
void add_moves(const Matrix<const T>& x, const T* mean, const double* scale, const double* weights, const Move* moves,
               int64_t count, int64_t first, int64_t last, int64_t* sums, int64_t ld) {
  dispatch<AddMoves>(x, mean, scale, weights, moves, count, first, last, sums, ld);
}
template <typename T>
double centred_squares(const T* x, const T* mean, const double* weights, int64_t d, int64_t begin, int64_t end) {
  return dispatch<CentredSquares>(x, mean, weights, d, begin, end);
}

template void column_stats(const float*, int64_t, int64_t, int64_t, const ColumnStats<float>&);
template void column_stats(const double*, int64_t, int64_t, int64_t, const ColumnStats<double>&);
template void add_moves(const Matrix<const float>&, const float*, const double*, const double*, const Move*, int64_t,
                        int64_t, int64_t, int64_t*, int64_t);
template void add_moves(const Matrix<const double>&, const double*, const double*, const double*, const Move*, int64_t,
                        int64_t, int64_t, int64_t*, int64_t);
template double centred_squares(const float*, const float*, const double*, int64_t, int64_t, int64_t);
template double centred_squares(const double*, const double*, const double*, int64_t, int64_t, int64_t);

}  // namespace deepclust::cpu
