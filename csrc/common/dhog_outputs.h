// What dhog_loss's kernels write, on either backend.
#pragma once

namespace deepclust {

struct DhogOutputs {
  double alpha;
  bool push_by_index;
  double lamb;
  void* loss;       // []
  void* pull;       // [heads]
  void* push;       // [heads, heads]
  void* pull_grad;  // [heads, pairs, classes, classes]
  void* push_grad;  // [heads, heads, classes, classes]
};

}  // namespace deepclust
