#include "joint_kernel.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace deepclust::cpu {
namespace {

template <typename T>
using Vec = typename VectorOf<T>::type;

template <typename T>
DC_INLINE Vec<T>& at(T* p) {
  return *reinterpret_cast<Vec<T>*>(p);
}
template <typename T>
DC_INLINE const Vec<T>& at(const T* p) {
  return *reinterpret_cast<const Vec<T>*>(p);
}

// Marks an entry that passes no gradient between steps 4 and 5: no log P reaches it.
template <typename T>
inline constexpr T kNoGradient = std::numeric_limits<T>::infinity();

// A vector's lanes in double: sums over rows are kept so, one addition a vector.
template <typename T>
struct Wide;
template <>
struct Wide<float> {
  typedef double type __attribute__((vector_size(128)));
};
template <>
struct Wide<double> {
  typedef double type __attribute__((vector_size(64)));
};

// The sum of the lanes, halves added to halves.
template <typename T, typename V>
DC_INLINE T lane_sum(const V& v) {
  constexpr int kCount = sizeof(V) / sizeof(T);
  T lanes[kCount];
  __builtin_memcpy(lanes, &v, sizeof(V));
  for (int half = kCount / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  return lanes[0];
}

template <typename T>
DC_INLINE int64_t block_end(const Joint<T>& joint, int64_t block) {
  return std::min(joint.rows, (block + 1) * kJointRows);
}

// Rows of the block against the columns at or left of the diagonal: every pair (c, d), d < c, belongs to one block.
template <typename T>
DC_INLINE void symmetrise(Joint<T>& joint, int64_t block) {
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

template <typename T>
DC_INLINE void marginals(Joint<T>& joint, int64_t block) {
  T* col_sums = joint.block_col_sums + block * joint.ld;
  std::fill(col_sums, col_sums + joint.ld, T(0));
  for (int64_t c = block * kJointRows; c < block_end(joint, block); ++c) {
    const T* row = joint.data + c * joint.ld;
    Vec<T> sum{};
    for (int64_t d = 0; d < joint.ld; d += kLanes<T>) {
      const Vec<T> count = at(row + d) < T(0) ? Vec<T>{} : at(row + d);
      sum += count;
      at(col_sums + d) += count;
    }
    joint.row_sums[c] = lane_sum<T>(sum);
  }
}

// lamb log(sums / total), 0 where a sum is not positive.
template <typename T>
DC_INLINE void log_marginal(const T* sums, int64_t size, double lamb, T log_total, T* logs) {
  for (int64_t i = 0; i < size; i += kLanes<T>) {
    Vec<T> value;
    log_lanes(at(sums + i), value);
    at(logs + i) = at(sums + i) > T(0) ? (value - log_total) * static_cast<T>(lamb) : Vec<T>{};
  }
}

template <typename T>
DC_INLINE void finish_marginals_inline(Joint<T>& joint) {
  std::fill(joint.col_sums, joint.col_sums + joint.ld, T(0));
  for (int64_t block = 0; block < joint.blocks(); ++block)
    for (int64_t d = 0; d < joint.ld; d += kLanes<T>)
      at(joint.col_sums + d) += at(joint.block_col_sums + block * joint.ld + d);
  joint.total = 0;
  for (int64_t c = 0; c < joint.rows; ++c) joint.total += static_cast<double>(joint.row_sums[c]);
  const int64_t padded = round_up(joint.rows, kLanes<T>);
  std::fill(joint.row_sums + joint.rows, joint.row_sums + padded, T(0));
  const T log_total = static_cast<T>(std::log(joint.total));
  log_marginal(joint.row_sums, padded, joint.lamb, log_total, joint.row_logs);
  log_marginal(joint.col_sums, joint.ld, joint.lamb, log_total, joint.col_logs);
}

template <typename T>
DC_INLINE void gradient(Joint<T>& joint, int64_t block) {
  const T log_total = static_cast<T>(std::log(joint.total));
  typename Wide<T>::type sum{};
  for (int64_t c = block * kJointRows; c < block_end(joint, block); ++c) {
    T* row = joint.data + c * joint.ld;
    const T row_term = log_total + joint.row_logs[c];
    Vec<T> row_sum{};
    for (int64_t d = 0; d < joint.ld; d += kLanes<T>) {
      const Vec<T> count = at(row + d);
      Vec<T> value;
      log_lanes(count, value);
      value -= at(joint.col_logs + d) + row_term;
      // A NaN count belongs in the sum: it must show.
      row_sum += count > T(0) || count != count ? count * value : Vec<T>{};
      at(row + d) = count <= T(0) ? Vec<T>{} + kNoGradient<T> : -value;
    }
    sum += __builtin_convertvector(row_sum, typename Wide<T>::type);
  }
  joint.block_loss[block] = lane_sum<double>(sum);
}

template <typename T>
DC_INLINE void finish_loss_inline(Joint<T>& joint) {
  double sum = 0;
  for (int64_t block = 0; block < joint.blocks(); ++block) sum += joint.block_loss[block];
  joint.loss = joint.total == 0 ? 0 : -sum / joint.total;
}

// dL/dJ = (g - <g, P>) / T with g = -value - 1 + 2 lamb and <g, P> = loss - 1 + 2 lamb: the constants cancel.
template <typename T>
DC_INLINE void scaled(const Joint<T>& joint, int64_t block, double scale, T* out, int64_t ldo) {
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

}  // namespace

#define DC_JOINT_STEPS(T)                                                                               \
  DC_CLONES void symmetrise_block(Joint<T>& joint, int64_t block) {                                     \
    symmetrise(joint, block);                                                                           \
  }                                                                                                     \
  DC_CLONES void marginals_block(Joint<T>& joint, int64_t block) {                                      \
    marginals(joint, block);                                                                            \
  }                                                                                                     \
  DC_CLONES void finish_marginals(Joint<T>& joint) {                                                    \
    finish_marginals_inline(joint);                                                                     \
  }                                                                                                     \
  DC_CLONES void gradient_block(Joint<T>& joint, int64_t block) {                                       \
    gradient(joint, block);                                                                             \
  }                                                                                                     \
  DC_CLONES void finish_loss(Joint<T>& joint) {                                                         \
    finish_loss_inline(joint);                                                                          \
  }                                                                                                     \
  DC_CLONES void scale_block(const Joint<T>& joint, int64_t block, double scale, T* out, int64_t ldo) { \
    scaled(joint, block, scale, out, ldo);                                                              \
  }
DC_JOINT_STEPS(float)
DC_JOINT_STEPS(double)

}  // namespace deepclust::cpu
