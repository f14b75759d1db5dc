// mi_loss on the GPU, as its torch side sees it: how the work is cut, and the launches.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "../common/dtype.h"
#include "joint_plan.h"

namespace deepclust::cuda {

struct MiPlan {
  int64_t batch, n, rows, cols;  // p [batch, n, rows], q [batch, n, cols]
  DType dtype;
  int tile;
  bool blas;  // the joint is wide enough for cuBLAS to be the faster
  int64_t chunk_rows, chunks;
  JointCut cut;

  MiPlan(int64_t batch, int64_t n, int64_t rows, int64_t cols, DType dtype)
      : batch(batch), n(n), rows(rows), cols(cols), dtype(dtype) {
    // From 256 x 256 on cuBLAS reaches more of the peak than a tile of 64, and has the tensor cores for half types.
    blas = n > 0 && rows >= 256 && cols >= 256;
    tile = tile_for(std::max(rows, cols), dtype == DType::kDouble);
    chunk_rows = blas ? n : chunk_rows_for(n, batch * tiles(), rows * cols);
    chunks = blas ? 1 : std::max<int64_t>(1, ceil_div(n, chunk_rows));
    cut = JointCut(rows, cols, chunks);
  }
  int64_t tiles() const { return ceil_div(rows, tile) * ceil_div(cols, tile); }
  std::size_t workspace_bytes() const;
  std::size_t backward_workspace_bytes() const;
};

// p, q, loss [batch] and joint_grad [batch, rows, cols] are dense; `blas_handle` is used where plan.blas says so.
void mi_loss_forward(const MiPlan& plan, const void* p, const void* q, double lamb, bool symmetric, void* workspace,
                     void* loss, void* joint_grad, void* blas_handle, void* stream);

// grad_p or grad_q is null where it is not needed.
void mi_loss_backward(const MiPlan& plan, const void* grad_loss, const void* p, const void* q, const void* joint_grad,
                      void* workspace, void* grad_p, void* grad_q, void* blas_handle, void* stream);

}  // namespace deepclust::cuda
