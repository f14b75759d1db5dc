// Mutual information of joints and its gradient, from the partial joints that the product kernel left.
//
//   J = sum of the partials (averaged with J^T where symmetric), T = sum J, r and s the sums of its rows and columns
//   loss  = -(1 / T) sum_cd J_cd v_cd,   v = log J - log T - lamb log(r / T) - lamb log(s / T)
//   dL/dJ = (-v - loss) / T times `scale`
// An entry that is 0 or negative counts as 0 and passes no gradient; T = 0 gives loss 0 and gradient 0.
//
// Three phases, each over blocks of rows: sum_block, gradient_block, scale_block. A joint of a few thousand entries is
// finished by one thread block in one launch; a larger one is cut into blocks of sixteen rows, and each phase is a
// launch. A warp takes a row, its lanes the columns, so no division is needed and reads are whole lines; in the
// symmetric sum the mirror entries are strided, but 16 neighbouring rows share their lines in the first-level cache.
//
// Traffic: chunks + 3 times the joint. The small launch is bound by latency (about ten dependent trips to the
// second-level cache, some 5 us by estimate), the large ones by bandwidth: 1000 x 1000 moves 16 MB, 5 us at an H100's
// 3.35 TB/s.
// Sums over a joint are kept in double and run in a fixed order.
#pragma once

#include <cmath>

#include "joint_plan.h"
#include "reduce.cuh"

namespace deepclust::cuda {

template <typename T>
struct Joint {
  const T* partials;  // [chunks, rows, cols]
  int64_t chunks, rows, cols;
  bool symmetric;
  double lamb, scale;
  JointCut cut;
  T* gradient;            // [rows, cols]: J after the first phase, -v after the second, dL/dJ * scale after the third
  T* row_sums = nullptr;  // [rows]
  T* col_sums = nullptr;  // [blocks, cols]: of the block's rows
  T* col_logs = nullptr;  // [blocks, cols]: lamb log(s / T), a copy for every block
  double* block_loss = nullptr;  // [blocks]

  // Its place among the joints that share a space.
  DC_DEVICE void bind(const JointSpace<T>& space, int64_t place) {
    row_sums = space.row_sums + place * rows;
    col_sums = space.col_sums + place * cut.blocks * cols;
    col_logs = space.col_logs + place * cut.blocks * cols;
    block_loss = space.block_loss + place * cut.blocks;
  }
  DC_DEVICE int64_t begin(int64_t block) const { return block * cut.block_rows; }
  DC_DEVICE int64_t end(int64_t block) const {
    const int64_t end = (block + 1) * cut.block_rows;
    return end < rows ? end : rows;
  }
};

// Marks an entry that passes no gradient: -v is never infinite.
template <typename T>
DC_DEVICE T no_gradient() {
  return static_cast<T>(INFINITY);
}

DC_DEVICE float log_of(float x) {
  return logf(x);
}
DC_DEVICE double log_of(double x) {
  return log(x);
}

// Four running sums, so that four reads are under way at once.
template <typename T>
DC_DEVICE T sum_of_chunks(const Joint<T>& joint, int64_t entry) {
  const int64_t size = joint.rows * joint.cols;
  T sums[4] = {};
  for (int64_t chunk = 0; chunk < joint.chunks; chunk += 4) DC_UNROLL
  for (int i = 0; i < 4; ++i)
    if (chunk + i < joint.chunks) sums[i] += joint.partials[(chunk + i) * size + entry];
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// f(row, col) for the entries of the block's rows; a thread meets the same entries at every call.
template <typename T, typename Row, typename Entry, typename Finish>
DC_DEVICE void for_rows(const Joint<T>& joint, int64_t block, const Row& row, const Entry& entry,
                        const Finish& finish) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int64_t c = joint.begin(block) + threadIdx.x / kWarp; c < joint.end(block); c += kWarps) {
    auto state = row(c);
    for (int64_t d = lane; d < joint.cols; d += kWarp) entry(c * joint.cols + d, c, d, state);
    finish(c, state);
  }
}

// J, its row sums, and the block's column sums.
template <typename T>
DC_DEVICE void sum_block(const Joint<T>& joint, int64_t block) {
  for_rows(
      joint, block, [](int64_t) { return T(0); },
      [&](int64_t e, int64_t c, int64_t d, T& sum) {
        T count = sum_of_chunks(joint, e);
        if (joint.symmetric) count = (count + sum_of_chunks(joint, d * joint.cols + c)) * T(0.5);
        count = count < T(0) ? T(0) : count;
        joint.gradient[e] = count;
        sum += count;
      },
      [&](int64_t c, T sum) {
        sum = warp_sum(sum);
        if (threadIdx.x % kWarp == 0) joint.row_sums[c] = sum;
      });
  DC_SYNC();
  for (int64_t d = threadIdx.x; d < joint.cols; d += kThreads) {
    T sum = 0;
    for (int64_t c = joint.begin(block); c < joint.end(block); ++c) sum += joint.gradient[c * joint.cols + d];
    joint.col_sums[block * joint.cols + d] = sum;
  }
}

template <typename T>
DC_DEVICE double total_of(const Joint<T>& joint) {
  double sum = 0;
  for (int64_t c = threadIdx.x; c < joint.rows; c += kThreads) sum += static_cast<double>(joint.row_sums[c]);
  return block_sum(sum);
}

// -v in place of J, and the block's share of sum J v.
template <typename T>
DC_DEVICE void gradient_block(const Joint<T>& joint, int64_t block) {
  const T log_total = static_cast<T>(log(total_of(joint)));
  const T lamb = static_cast<T>(joint.lamb);
  const auto marginal_log = [&](T sum) { return sum > T(0) ? (log_of(sum) - log_total) * lamb : T(0); };
  T* const col_logs = joint.col_logs + block * joint.cols;
  for (int64_t d = threadIdx.x; d < joint.cols; d += kThreads) {
    T sum = 0;
    for (int64_t b = 0; b < joint.cut.blocks; ++b) sum += joint.col_sums[b * joint.cols + d];
    col_logs[d] = marginal_log(sum);
  }
  DC_SYNC();
  double loss = 0;
  for_rows(
      joint, block, [&](int64_t c) { return log_total + marginal_log(joint.row_sums[c]); },
      [&](int64_t e, int64_t, int64_t d, T row_term) {
        const T count = joint.gradient[e];
        const T value = log_of(count) - (row_term + col_logs[d]);
        // A NaN count belongs in the sum: it must show.
        if (!(count <= T(0))) loss += static_cast<double>(count * value);
        joint.gradient[e] = count <= T(0) ? no_gradient<T>() : -value;
      },
      [](int64_t, T) {});
  loss = block_sum(loss);
  if (threadIdx.x == 0) joint.block_loss[block] = loss;
}

// dL/dJ * scale in place of -v; returns the loss.
template <typename T>
DC_DEVICE double scale_block(const Joint<T>& joint, int64_t block) {
  // Still smaller totals would overflow here, times a logarithm of up to 100; the cap keeps the gradient finite.
  constexpr double kSmallestTotal = 128.0 * (sizeof(T) == sizeof(double) ? 2.2250738585072014e-308 : 1.17549435e-38);
  const double total = total_of(joint);
  double loss = 0;
  for (int64_t b = 0; b < joint.cut.blocks; ++b) loss += joint.block_loss[b];
  loss = total == 0 ? 0 : -loss / total;
  const double capped = total < kSmallestTotal ? kSmallestTotal : total;  // NaN stays
  const T factor = total == 0 ? T(0) : static_cast<T>(joint.scale / capped);
  const T mean = static_cast<T>(loss);
  for_rows(
      joint, block, [](int64_t) { return 0; },
      [&](int64_t e, int64_t, int64_t, int) {
        const T value = joint.gradient[e];
        joint.gradient[e] = value == no_gradient<T>() ? T(0) : (value - mean) * factor;
      },
      [](int64_t, int) {});
  return loss;
}

// The block's rows of a joint that is not wanted: gradient 0.
template <typename T>
DC_DEVICE void clear_block(const Joint<T>& joint, int64_t block) {
  const int64_t end = joint.end(block) * joint.cols;
  for (int64_t e = joint.begin(block) * joint.cols + threadIdx.x; e < end; e += kThreads) joint.gradient[e] = T(0);
}

// A Source says what the joints are: source.joint(t), source.wanted(t), and source.finish(t, loss), which all threads
// of one block call once the joint's loss is known.
template <typename Source>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads, 1) finish_joints(const Source source) {
  const int64_t t = blockIdx.x;
  const auto joint = source.joint(t);
  double loss = 0;
  if (source.wanted(t)) {
    sum_block(joint, 0);
    gradient_block(joint, 0);  // its first barrier, in total_of, stands before it reads the column sums
    DC_SYNC();
    loss = scale_block(joint, 0);
  } else {
    clear_block(joint, 0);
  }
  source.finish(t, loss);
}

template <typename Source>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads, 1) sum_joints(const Source source, int64_t blocks) {
  const int64_t t = blockIdx.x / blocks;
  if (source.wanted(t)) sum_block(source.joint(t), blockIdx.x % blocks);
}

template <typename Source>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads, 1) gradient_joints(const Source source, int64_t blocks) {
  const int64_t t = blockIdx.x / blocks;
  if (source.wanted(t)) gradient_block(source.joint(t), blockIdx.x % blocks);
}

template <typename Source>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads, 1) scale_joints(const Source source, int64_t blocks) {
  const int64_t t = blockIdx.x / blocks, block = blockIdx.x % blocks;
  const auto joint = source.joint(t);
  double loss = 0;
  if (source.wanted(t))
    loss = scale_block(joint, block);
  else
    clear_block(joint, block);
  if (block == 0) source.finish(t, loss);
}

template <typename Source>
void launch_joints(const Source& source, int64_t joints, int64_t blocks, Stream stream) {
  if (joints == 0) return;
  const auto run = [&](auto* kernel, auto... arguments) {
    DC_LAUNCH(kernel, static_cast<unsigned>(joints * blocks), kThreads, 0, stream)(source, arguments...);
  };
  if (blocks == 1) return run(&finish_joints<Source>);
  run(&sum_joints<Source>, blocks);
  run(&gradient_joints<Source>, blocks);
  run(&scale_joints<Source>, blocks);
}

}  // namespace deepclust::cuda
