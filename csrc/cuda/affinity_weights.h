// affinity_weights on the GPU, as its torch side sees it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "../common/dtype.h"

namespace deepclust::cuda {

struct AffinityPlan {
  int64_t count;  // distances
  DType dtype;
  int64_t chunk, chunks;  // what a block sums; their bounds depend on the count alone

  AffinityPlan(int64_t count, DType dtype) : count(count), dtype(dtype) {
    chunk = std::max<int64_t>(4096, (count + kMostChunks - 1) / kMostChunks);
    chunks = std::max<int64_t>(1, (count + chunk - 1) / chunk);
  }
  std::size_t workspace_bytes() const { return static_cast<std::size_t>(chunks) * sizeof(double); }

 private:
  static constexpr int64_t kMostChunks = 1024;  // every block adds their sums
};

// distances and weights [count], sigma2 [1], of the plan's type; `bad` is set to 1 if sigma2 is not finite, else to 0.
void affinity_weights(const AffinityPlan& plan, const void* distances, double a, void* workspace, void* weights,
                      void* sigma2, int64_t* bad, void* stream);

}  // namespace deepclust::cuda
