// mi_loss on the CPU: J = p^T q, then the loss and dL/dJ; backward is grad_p = g q dL/dJ^T and grad_q = g p dL/dJ.
//
// Traffic: p and q are read once forward and once backward; q is laid out in panels a chunk at a time, so the largest
// scratch is one partial joint a chunk, at most kMaxChunks of them. Work: 6 n C D multiply-adds in all; the products
// bound it from about C = 30 on, call overhead below.
// Tiling: tasks are (row chunk, block of C, block of D), their bounds a function of the sizes alone.
#pragma once

#include <algorithm>
#include <cstring>

#include "../../common/buffer.h"
#include "../gemm/product.h"
#include "joint.h"

namespace deepclust::cpu {

inline constexpr int64_t kChunkRows = 512;  // rows laid out at a time
inline constexpr int64_t kMaxChunks = 16;   // partial joints kept at once
inline constexpr int64_t kBlockRows = 256;  // rows of the joint a task computes
inline constexpr int64_t kBackwardRows = 256;

// How p^T q of [n, C] and [n, D] is cut.
struct JointPlan {
  int64_t n, rows, cols, ld, chunks, chunk_rows, row_blocks, col_blocks, block_cols;

  JointPlan(int64_t n, int64_t rows, int64_t cols, int64_t lanes) : n(n), rows(rows), cols(cols) {
    ld = round_up(cols, lanes);
    block_cols = 15 * lanes;  // five panels
    row_blocks = ceil_div(rows, kBlockRows);
    col_blocks = ceil_div(cols, block_cols);
    const int64_t wanted = row_blocks * col_blocks >= kMaxChunks ? 1 : kMaxChunks;
    chunk_rows = std::max(kChunkRows, round_up(ceil_div(n, wanted), kChunkRows));
    chunks = std::max<int64_t>(1, ceil_div(n, chunk_rows));
  }
  int64_t tasks() const { return chunks * row_blocks * col_blocks; }
  int64_t work() const { return n * rows * ld; }
  int64_t partial_size() const { return rows * ld; }
};

// One task: its block of its chunk's partial joint. partials [chunks, rows, ld].
template <typename T>
void joint_task(const JointPlan& plan, const Matrix<const T>& p, const Matrix<const T>& q, int64_t task, T* partials) {
  const int64_t col_block = task % plan.col_blocks;
  const int64_t row_block = task / plan.col_blocks % plan.row_blocks;
  const int64_t chunk = task / plan.col_blocks / plan.row_blocks;
  const int64_t c0 = row_block * kBlockRows, c1 = std::min(plan.rows, c0 + kBlockRows);
  const int64_t d0 = col_block * plan.block_cols, d1 = std::min(plan.cols, d0 + plan.block_cols);
  T* out = partials + chunk * plan.partial_size() + c0 * plan.ld + d0;

  const int64_t begin = chunk * plan.chunk_rows, end = std::min(plan.n, begin + plan.chunk_rows);
  const Buffer<T> panel_memory(Panels<T>::size(std::min(kChunkRows, end - begin), d1 - d0));
  for (int64_t row = begin; row < end || row == begin; row += kChunkRows) {
    const int64_t size = std::min(kChunkRows, end - row);
    const Panels<T> panels = panels_of(q.block(row, d0, size, d1 - d0), panel_memory.get());
    product(p.block(row, c0, size, c1 - c0), panels, 0, d1 - d0, out, plan.ld, row > begin);
  }
}

// Rows of block `block`: the sum of all partial joints, in order, left in the first.
template <typename T>
void combine_partials(const JointPlan& plan, int64_t block, T* partials) {
  const int64_t begin = block * kJointRows * plan.ld;
  const int64_t end = std::min(plan.rows * plan.ld, begin + kJointRows * plan.ld);
  for (int64_t chunk = 1; chunk < plan.chunks; ++chunk) {
    const T* __restrict__ partial = partials + chunk * plan.partial_size();
    for (int64_t i = begin; i < end; ++i) partials[i] += partial[i];
  }
}

// Rows [begin, end) of out [n, C] = scale * x [n, D] m^T, with `m_transposed` the panels of m^T [D, C].
template <typename T>
void apply_rows(const Matrix<const T>& x, const Panels<T>& m_transposed, int64_t cols, double scale, int64_t begin,
                int64_t end, T* out) {
  const int64_t ld = round_up(m_transposed.cols, kLanes<T>);
  const Buffer<T> tile((end - begin) * ld);
  product(x.block(begin, 0, end - begin, x.cols).transposed(), m_transposed, 0, ld, tile.get(), ld, false);
  const T factor = static_cast<T>(scale);
  for (int64_t row = begin; row < end; ++row) {
    const T* __restrict__ source = tile.get() + (row - begin) * ld;
    T* __restrict__ target = out + row * cols;
    for (int64_t c = 0; c < cols; ++c) target[c] = factor * source[c];
  }
}

}  // namespace deepclust::cpu
