// mi_loss on the GPU: J_b = p_b^T q_b, then the loss and dL/dJ; backward is grad_p = g q dL/dJ^T and grad_q = g p
// dL/dJ.
//
// Forward: one launch forms the partial joints of all batch items (product_kernel.cuh; A and B are row-major with the
// clusters fastest, k is the sample), one finishes them (joint_kernel.cuh; three for a large joint). Backward: one
// launch for both sides (A is x, k fastest; B is dL/dJ or its transpose). The upstream gradient is read on the device:
// nothing here waits for the host, and a CUDA graph can record it.
//
// At (220, 10) a launch moves 18 KB and multiplies 22 thousand times: both directions are bound by launch latency,
// three launches in all. At (4096, 100) the 82 MFLOP of each product take 2.4 us at half the float32 peak, the 3.3 MB
// of inputs 1 us: arithmetic bounds it. From 256 x 256 clusters on cuBLAS forms the joints, and the gradients of
// float32 and float64; a half type's gradient needs half x float32 with an exact dL/dJ, which cuBLAS has not, and stays
// here.
#pragma once

#include "joint_kernel.cuh"
#include "mi_loss.h"
#include "product_kernel.cuh"

namespace deepclust::cuda {

struct MiTile {
  int64_t m0, n0, rows, cols;
  int segments;
  int64_t item, part;  // of the batch; the chunk (forward), or 1 for q's side (backward)
};

// Partial joints: (item, chunk, tile of rows, tile of cols) to a block.
template <typename E>
struct MiJointProducts {
  using T = accumulator_t<E>;
  MiPlan plan;
  const E* p;   // [batch, n, rows]
  const E* q;   // [batch, n, cols]
  T* partials;  // [batch, chunks, rows, cols]

  template <int kTile>
  DC_DEVICE MiTile tile() const {
    const int64_t across = ceil_div(plan.cols, kTile), down = ceil_div(plan.rows, kTile);
    const int64_t place = blockIdx.x % (across * down), part = blockIdx.x / (across * down);
    return {place / across * kTile, place % across * kTile, plan.rows, plan.cols, 1,
            part / plan.chunks,     part % plan.chunks};
  }
  using Rows = Operand<E, Fastest::kM>;
  DC_DEVICE Segment<Rows, Rows> segment(const MiTile& tile, int) const {
    const int64_t begin = tile.part * plan.chunk_rows, end = begin + plan.chunk_rows;
    return {{p + tile.item * plan.n * plan.rows, plan.rows, plan.rows},
            {q + tile.item * plan.n * plan.cols, plan.cols, plan.cols},
            begin,
            end < plan.n ? end : plan.n};
  }
  DC_DEVICE void store(const MiTile& tile, int64_t m, int64_t n, T sum) const {
    partials[((tile.item * plan.chunks + tile.part) * plan.rows + m) * plan.cols + n] = sum;
  }
};

template <typename T>
struct MiJoints {
  MiPlan plan;
  double lamb;
  bool symmetric;
  JointSpace<T> space;
  const T* partials;  // [batch, chunks, rows, cols]
  T* loss;            // [batch]
  T* joint_grad;      // [batch, rows, cols]

  DC_DEVICE bool wanted(int64_t) const { return true; }
  DC_DEVICE Joint<T> joint(int64_t item) const {
    const int64_t size = plan.rows * plan.cols;
    Joint<T> joint{partials + item * plan.chunks * size,
                   plan.chunks,
                   plan.rows,
                   plan.cols,
                   symmetric,
                   lamb,
                   1.0,
                   plan.cut,
                   joint_grad + item * size};
    joint.bind(space, item);
    return joint;
  }
  DC_DEVICE void finish(int64_t item, double value) const {
    if (threadIdx.x == 0) loss[item] = static_cast<T>(value);
  }
};

// Gradients: (side, item, tile of samples, tile of clusters) to a block; p's side first.
template <typename E>
struct MiGradients {
  using T = accumulator_t<E>;
  MiPlan plan;
  const T* grad_loss;  // [batch]
  const E* p;
  const E* q;
  const T* joint_grad;  // [batch, rows, cols]
  E* grad_p;            // [batch, n, rows], or null
  E* grad_q;            // [batch, n, cols], or null

  int64_t blocks(int tile) const {
    const int64_t p_tiles = grad_p == nullptr ? 0 : ceil_div(plan.rows, tile);
    const int64_t q_tiles = grad_q == nullptr ? 0 : ceil_div(plan.cols, tile);
    return plan.batch * ceil_div(plan.n, tile) * (p_tiles + q_tiles);
  }
  template <int kTile>
  DC_DEVICE MiTile tile() const {
    const int64_t down = ceil_div(plan.n, kTile);
    const int64_t p_blocks = grad_p == nullptr ? 0 : plan.batch * down * ceil_div(plan.rows, kTile);
    const bool for_q = blockIdx.x >= p_blocks;
    const int64_t block = for_q ? blockIdx.x - p_blocks : blockIdx.x, cols = for_q ? plan.cols : plan.rows;
    const int64_t across = ceil_div(cols, kTile), place = block % (across * down);
    return {place / across * kTile, place % across * kTile, plan.n, cols, 1, block / (across * down), for_q ? 1 : 0};
  }
  DC_DEVICE Segment<Operand<E, Fastest::kK>, Operand<T, Fastest::kEither>> segment(const MiTile& tile, int) const {
    const T* const g = joint_grad + tile.item * plan.rows * plan.cols;
    if (tile.part == 1)
      return {{p + tile.item * plan.n * plan.rows, plan.rows, plan.n}, {g, plan.cols, plan.cols, false}, 0, plan.rows};
    return {{q + tile.item * plan.n * plan.cols, plan.cols, plan.n}, {g, plan.cols, plan.rows, true}, 0, plan.cols};
  }
  DC_DEVICE void store(const MiTile& tile, int64_t m, int64_t n, T sum) const {
    E* const out = tile.part == 1 ? grad_q : grad_p;
    write(sum * grad_loss[tile.item], out[(tile.item * plan.n + m) * tile.cols + n]);
  }
};

// scaled[b] = grad_loss[b] joint_grad[b], for cuBLAS: its own factor is one for the whole batch.
template <typename T>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads)
    scale_joint_grads(const T* grad_loss, const T* joint_grad, int64_t size, int64_t blocks, T* scaled) {
  const int64_t item = blockIdx.x / blocks;
  for (int64_t e = blockIdx.x % blocks * kThreads + threadIdx.x; e < size; e += blocks * kThreads)
    scaled[item * size + e] = grad_loss[item] * joint_grad[item * size + e];
}

}  // namespace deepclust::cuda
