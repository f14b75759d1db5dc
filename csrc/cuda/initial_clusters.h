// initial_clusters on the GPU, as its torch side sees it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "workspace.h"

namespace deepclust::cuda {

struct ComponentsPlan {
  int64_t n, k;           // indices [n, k], of which column 0 counts
  int64_t chunk, chunks;  // points a block numbers

  ComponentsPlan(int64_t n, int64_t k) : n(n), k(k) {
    chunk = std::max<int64_t>(1024, (n + kMostChunks - 1) / kMostChunks);
    chunks = (n + chunk - 1) / chunk;
  }
  std::size_t workspace_bytes() const;

 private:
  static constexpr int64_t kMostChunks = 1024;  // every block adds the counts of those before it
};

// labels [n]. `bad_row` is the first row whose entry is no point, or -1; labels mean nothing then.
void initial_clusters(const ComponentsPlan& plan, const int64_t* indices, void* workspace, int64_t* labels,
                      unsigned long long* bad_row, void* stream);

}  // namespace deepclust::cuda
