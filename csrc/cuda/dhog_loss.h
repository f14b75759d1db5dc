// dhog_loss on the GPU, as its torch side sees it: how the work is cut, and the launches.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "../common/dhog_outputs.h"
#include "../common/dtype.h"
#include "joint_plan.h"

namespace deepclust::cuda {

struct DhogPlan {
  int64_t views, heads, n, classes;  // probs [views, heads, n, classes]
  bool pooled;
  DType dtype;
  int64_t pairs;          // pull joints a head: one pooled over all pairs of views, or one a pair
  int64_t pulls, pushes;  // joints: heads * pairs; the pairs of heads j < i
  int64_t finished;       // the pulls, then all heads x heads, of which those with j >= i are only cleared
  int tile;
  int64_t chunk_rows, row_chunks;
  int64_t pull_chunks, push_chunks;  // partial joints of each; pooled sums are cut by view too
  JointCut cut;

  DhogPlan(int64_t views, int64_t heads, int64_t n, int64_t classes, bool pooled, DType dtype)
      : views(views), heads(heads), n(n), classes(classes), pooled(pooled), dtype(dtype) {
    pairs = pooled ? 1 : views * (views - 1) / 2;
    pulls = heads * pairs;
    pushes = heads * (heads - 1) / 2;
    finished = pulls + heads * heads;
    tile = tile_for(classes, dtype == DType::kDouble);
    const int64_t blocks = (pulls * (pooled ? views : 1) + pushes * views) * tiles();
    chunk_rows = chunk_rows_for(n, blocks, classes * classes);
    row_chunks = std::max<int64_t>(1, ceil_div(n, chunk_rows));
    pull_chunks = pooled ? views * row_chunks : row_chunks;
    push_chunks = views * row_chunks;
    cut = JointCut(classes, classes, std::max(pull_chunks, push_chunks));
  }
  int64_t across() const { return ceil_div(classes, tile); }
  int64_t tiles() const { return across() * across(); }
  std::size_t workspace_bytes() const;
};

// probs is dense.
void dhog_loss_forward(const DhogPlan& plan, const void* probs, void* workspace, const DhogOutputs& out, void* stream);

void dhog_loss_backward(const DhogPlan& plan, const void* grad_loss, const void* probs, const void* pull_grad,
                        const void* push_grad, void* grad, void* stream);

}  // namespace deepclust::cuda
