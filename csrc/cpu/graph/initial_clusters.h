// Weakly connected components of the graph of first neighbours, by union-find with path halving: n unions, the root the
// lowest member, so that numbering by first member is one pass.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace deepclust::cpu {

// indices [n, k], of which column 0 counts, entries within [0, n). labels [n].
inline void initial_clusters(const int64_t* indices, int64_t n, int64_t k, int64_t* labels) {
  std::vector<int64_t> parent(static_cast<std::size_t>(n));
  for (int64_t i = 0; i < n; ++i) parent[i] = i;
  const auto root = [&](int64_t i) {
    while (parent[i] != i) i = parent[i] = parent[parent[i]];
    return i;
  };
  for (int64_t i = 0; i < n; ++i) {
    const int64_t a = root(i), b = root(indices[i * k]);
    parent[a < b ? b : a] = a < b ? a : b;
  }
  int64_t count = 0;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t first = root(i);
    labels[i] = first == i ? count++ : labels[first];
  }
}

}  // namespace deepclust::cpu
