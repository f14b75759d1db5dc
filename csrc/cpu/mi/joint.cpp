#include "joint.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "../simd/logarithm.h"

namespace deepclust::cpu {
namespace {

// Marks an entry that passes no gradient between steps 4 and 5: no log P reaches it.
template <typename T>
inline constexpr T kNoGradient = std::numeric_limits<T>::infinity();

// The sum of kLanes<T> lanes, halves added to halves: the same order at every level.
template <typename T, int64_t kCount>
DC_INLINE T lane_sum(T (&lanes)[kCount]) {
  for (int64_t half = kCount / 2; half > 0; half /= 2)
    for (int64_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

template <typename T>
DC_INLINE int64_t block_end(const Joint<T>& joint, int64_t block) {
  return std::min(joint.rows, (block + 1) * kJointRows);
}

// Rows of the block against the columns at or left of the diagonal: every pair (c, d), d < c, belongs to one block.
struct Symmetrise {
  template <typename L, typename T>
  static DC_INLINE void run(Joint<T>& joint, int64_t block) {
    constexpr int64_t kTile = 16;  // a 16 x 16 tile and its mirror image stay in the first-level cache
    const int64_t begin = block * kJointRows, end = block_end(joint, block);
    for (int64_t col = 0; col < end; col += kTile) {
      for (int64_t c = std::max(begin, col); c < end; ++c) {
        const int64_t stop = std::min(col + kTile, c);
        for (int64_t d = col; d < stop; ++d) {
          T& lower = joint.data[c * joint.ld + d];
          T& upper = joint.data[d * joint.ld + c];
          lower = upper = (lower + upper) * T(0.5);
        }
      }
    }
  }
};

struct Marginals {
  template <typename L, typename T>
  static DC_INLINE void run(Joint<T>& joint, int64_t block) {
    using R = Register<L, T>;
    using V = typename R::type;
    T* col_sums = joint.block_col_sums + block * joint.ld;
    std::fill(col_sums, col_sums + joint.ld, T(0));
    for (int64_t c = block * kJointRows; c < block_end(joint, block); ++c) {
      const T* row = joint.data + c * joint.ld;
      V sum[R::kParts] = {};
      for (int64_t d = 0; d < joint.ld; d += kLanes<T>)
        for (int p = 0; p < R::kParts; ++p) {
          const int64_t at = d + p * R::kLanes;
          const V value = load<L, T>(row + at);
          const V count = value < T(0) ? V{} : value;
          sum[p] += count;
          store<L, T>(col_sums + at, load<L, T>(col_sums + at) + count);
        }
      T lanes[kLanes<T>];
      for (int p = 0; p < R::kParts; ++p) store<L, T>(lanes + p * R::kLanes, sum[p]);
      joint.row_sums[c] = lane_sum(lanes);
    }
  }
};

// lamb log(sums / total), 0 where a sum is not positive.
template <typename L, typename T>
DC_INLINE void log_marginal(const T* sums, int64_t size, double lamb, T log_total, T* logs) {
  using V = typename Register<L, T>::type;
  for (int64_t i = 0; i < size; i += Register<L, T>::kLanes) {
    const V sum = load<L, T>(sums + i), value = log_lanes<L>(sum);
    store<L, T>(logs + i, sum > T(0) ? (value - log_total) * static_cast<T>(lamb) : V{});
  }
}

struct FinishMarginals {
  template <typename L, typename T>
  static DC_INLINE void run(Joint<T>& joint) {
    using R = Register<L, T>;
    std::fill(joint.col_sums, joint.col_sums + joint.ld, T(0));
    for (int64_t block = 0; block < joint.blocks(); ++block)
      for (int64_t d = 0; d < joint.ld; d += R::kLanes)
        store<L, T>(joint.col_sums + d,
                    load<L, T>(joint.col_sums + d) + load<L, T>(joint.block_col_sums + block * joint.ld + d));
    joint.total = 0;
    for (int64_t c = 0; c < joint.rows; ++c) joint.total += static_cast<double>(joint.row_sums[c]);
    const int64_t padded = round_up(joint.rows, kLanes<T>);
    std::fill(joint.row_sums + joint.rows, joint.row_sums + padded, T(0));
    const T log_total = static_cast<T>(std::log(joint.total));
    log_marginal<L>(joint.row_sums, padded, joint.lamb, log_total, joint.row_logs);
    log_marginal<L>(joint.col_sums, joint.ld, joint.lamb, log_total, joint.col_logs);
  }
};

struct Gradient {
  template <typename L, typename T>
  static DC_INLINE void run(Joint<T>& joint, int64_t block) {
    using R = Register<L, T>;
    using V = typename R::type;
    const T log_total = static_cast<T>(std::log(joint.total));
    double sums[kLanes<T>] = {};  // over rows in double, one addition a row
    for (int64_t c = block * kJointRows; c < block_end(joint, block); ++c) {
      T* row = joint.data + c * joint.ld;
      const T row_term = log_total + joint.row_logs[c];
      V row_sum[R::kParts] = {};
      for (int64_t d = 0; d < joint.ld; d += kLanes<T>)
        for (int p = 0; p < R::kParts; ++p) {
          const int64_t at = d + p * R::kLanes;
          const V count = load<L, T>(row + at);
          const V value = log_lanes<L>(count) - (load<L, T>(joint.col_logs + at) + row_term);
          // A NaN count belongs in the sum: it must show.
          row_sum[p] += count > T(0) || count != count ? count * value : V{};
          store<L, T>(row + at, count <= T(0) ? broadcast<L, T>(kNoGradient<T>) : -value);
        }
      T lanes[kLanes<T>];
      for (int p = 0; p < R::kParts; ++p) store<L, T>(lanes + p * R::kLanes, row_sum[p]);
      for (int64_t i = 0; i < kLanes<T>; ++i) sums[i] += static_cast<double>(lanes[i]);
    }
    joint.block_loss[block] = lane_sum(sums);
  }
};

// dL/dJ = (g - <g, P>) / T with g = -value - 1 + 2 lamb and <g, P> = loss - 1 + 2 lamb: the constants cancel.
struct Scale {
  template <typename L, typename T>
  static DC_INLINE void run(const Joint<T>& joint, int64_t block, double scale, T* out, int64_t ldo) {
    // Still smaller totals would overflow here, times a logarithm of up to 100; the cap keeps the gradient finite.
    constexpr double kSmallestTotal = 128.0 * static_cast<double>(std::numeric_limits<T>::min());
    const double per_total = joint.total == 0 ? 0 : scale / std::max(joint.total, kSmallestTotal);
    const T factor = static_cast<T>(joint.total != joint.total ? joint.total : per_total);
    const T loss = static_cast<T>(joint.loss);
    for (int64_t c = block * kJointRows; c < block_end(joint, block); ++c) {
      const T* row = joint.data + c * joint.ld;
      for (int64_t d = 0; d < joint.cols; ++d)
        out[c * ldo + d] = row[d] == kNoGradient<T> ? T(0) : (row[d] - loss) * factor;
    }
  }
};

}  // namespace

template <typename T>
void symmetrise_block(Joint<T>& joint, int64_t block) {
  dispatch<Symmetrise>(joint, block);
}
template <typename T>
void marginals_block(Joint<T>& joint, int64_t block) {
  dispatch<Marginals>(joint, block);
}
template <typename T>
void finish_marginals(Joint<T>& joint) {
  dispatch<FinishMarginals>(joint);
}
template <typename T>
void gradient_block(Joint<T>& joint, int64_t block) {
  dispatch<Gradient>(joint, block);
}
template <typename T>
void finish_loss(Joint<T>& joint) {
  double sum = 0;
  for (int64_t block = 0; block < joint.blocks(); ++block) sum += joint.block_loss[block];
  joint.loss = joint.total == 0 ? 0 : -sum / joint.total;
}
template <typename T>
void scale_block(const Joint<T>& joint, int64_t block, double scale, T* out, int64_t ldo) {
  dispatch<Scale>(joint, block, scale, out, ldo);
}

template void symmetrise_block(Joint<float>&, int64_t);
template void symmetrise_block(Joint<double>&, int64_t);
template void marginals_block(Joint<float>&, int64_t);
template void marginals_block(Joint<double>&, int64_t);
template void finish_marginals(Joint<float>&);
template void finish_marginals(Joint<double>&);
template void gradient_block(Joint<float>&, int64_t);
template void gradient_block(Joint<double>&, int64_t);
template void finish_loss(Joint<float>&);
template void finish_loss(Joint<double>&);
template void scale_block(const Joint<float>&, int64_t, double, float*, int64_t);
template void scale_block(const Joint<double>&, int64_t, double, double*, int64_t);

}  // namespace deepclust::cpu
