// Mutual information of a joint matrix of counts, and its gradient.
//
// For a joint J [C, D] >= 0 with sum T, P = J / T, marginals r_c = sum_d P_cd and s_d = sum_c P_cd:
//
//   loss  = -sum_cd P_cd (log P_cd - lamb log r_c - lamb log s_d)          (minus the mutual information at lamb = 1)
//   g_cd  = -(log P_cd - lamb log r_c - lamb log s_d) - 1 + 2 lamb         (d loss / d P, marginals included)
//   dL/dJ = (g - <g, P>) / T,  where <g, P> = loss - 1 + 2 lamb
//
// An entry that is 0 or negative (which no probabilities can make) counts as 0 and passes no gradient; a
// joint that sums to 0 has loss 0 and gradient 0. Sums over the matrix run in blocks of kJointRows rows combined in
// index order, in double, so the result does not depend on how the blocks are shared out.
#pragma once

#include <cstdint>

#include "../simd/vectors.h"

namespace deepclust::cpu {

inline constexpr int64_t kJointRows = 64;

template <typename T>
struct Joint {
  T* data = nullptr;      // [rows, ld]: J, zero in the columns from cols to ld; overwritten
  int64_t rows = 0;       // C
  int64_t cols = 0;       // D
  int64_t ld = 0;         // cols rounded up to whole vectors
  T* row_sums = nullptr;  // [rows]
  T* row_logs = nullptr;  // [rows]     lamb log r
  T* col_sums = nullptr;  // [ld]
  T* col_logs = nullptr;  // [ld]       lamb log s
  // One slot a block of kJointRows rows.
  T* block_col_sums = nullptr;   // [blocks, ld]
  double* block_loss = nullptr;  // [blocks]
  double lamb = 1.0;
  double total = 0.0;  // T
  double loss = 0.0;

  int64_t blocks() const { return ceil_div(rows, kJointRows); }
  // Elements of T that `bind` hands out from one piece of scratch memory.
  static int64_t scratch_size(int64_t rows, int64_t ld) {
    return 2 * round_up(rows, kLanes<T>) + 2 * ld + ceil_div(rows, kJointRows) * ld;
  }
  void bind(T* scratch) {
    row_sums = scratch;
    row_logs = row_sums + round_up(rows, kLanes<T>);
    col_sums = row_logs + round_up(rows, kLanes<T>);
    col_logs = col_sums + ld;
    block_col_sums = col_logs + ld;
  }
};

// The steps. Those with a block may run for all blocks at once; each waits for the one before.
// 1. (symmetric joints only) averages the block's rows [.., 0..end) with their mirror image.
template <typename T>
void symmetrise_block(Joint<T>& joint, int64_t block);
// 2. row sums and the block's column sums.
template <typename T>
void marginals_block(Joint<T>& joint, int64_t block);
// 3. total, column sums, logarithms of the marginals.
template <typename T>
void finish_marginals(Joint<T>& joint);
// 4. the block's share of the loss, and g + 1 - 2 lamb in place of J (zero where J is).
template <typename T>
void gradient_block(Joint<T>& joint, int64_t block);
// 5. the loss; then the block's rows of dL/dJ times `scale`, written to out [rows, cols] with rows ldo apart.
template <typename T>
void finish_loss(Joint<T>& joint);
template <typename T>
void scale_block(const Joint<T>& joint, int64_t block, double scale, T* out, int64_t ldo);

}  // namespace deepclust::cpu
