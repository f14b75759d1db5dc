// Clusters of a directed weighted graph and the affinities between them, kept up to date as clusters merge.
//
//   U[a, c] = sum over x in C_c of in_a(x) out_a(x),  in_a(x) = sum of W_yx, out_a(x) = sum of W_xy over y in C_a
//   A(a, c) = U[a, c] / |a|^2 + U[c, a] / |c|^2
//
// When b joins a, U[c, a + b] = U[c, a] + U[c, b], and U[a + b, c] = U[a, c] + U[b, c] + the cross terms
// sum over x in C_c of in_a(x) out_b(x) + in_b(x) out_a(x), which only vertices with edges to both can add to. So each
// cluster keeps the links of the vertices around it, and the smaller table is read into the larger: every link moves
// O(log E) times in all. Pairs of clusters with U = 0 both ways are not kept. Memory: two links an edge at most, and
// one neighbour an entry of U. Sums are of whole numbers (fixed_weights.h).
#pragma once

#include <cstdint>
#include <vector>

#include "fixed_weights.h"
#include "support.h"

namespace deepclust::cpu {

// What a merge makes of U[a + b, c]. slide: A(c -> a + b) = (m A(c -> a) + n A(c -> b)) / (m + n) of the clusters'
// sizes, which is a sum of U / |a|.
enum class Update { exact = 0, slide = 1, sum = 2 };

// indices and weights [n, k], labels [n] within [0, m).
struct KnnGraph {
  const int64_t* indices;
  const double* weights;
  int64_t n, k;
};

struct Neighbour {
  Wide given;       // U[this cluster, neighbour]; divided by this cluster's first size where sums slide
  double affinity;  // symmetric
  int32_t cluster;
};

class ClusterGraph {
 public:
  ClusterGraph(const KnnGraph& graph, const int64_t* labels, int64_t m, Update update);

  const std::vector<Neighbour>& neighbours(int32_t cluster) const { return neighbours_[cluster]; }

  // b joins a. Afterwards `touched()` lists the clusters other than a whose affinities have changed.
  void merge(int32_t a, int32_t b);
  const std::vector<int32_t>& touched() const { return touched_; }

  // The cluster of each vertex now: the lowest index of those that have joined.
  std::vector<int32_t> labels();

 private:
  // What the cluster at hand and another one, c, give each other.
  struct Exchange {
    Wide given = 0;     // U[this, c]
    Wide received = 0;  // U[c, this]
    bool touched = false;
  };

  void add_links(const KnnGraph& graph, int bits);
  void join_supports(int32_t a, int32_t b);
  int32_t cluster_of(int32_t vertex);
  Exchange& touch(int32_t cluster);
  void forget_touched();
  double affinity(int32_t a, int32_t c) const;  // from exchange_[c]
  double share(Wide given, int64_t size) const;

  Update update_;
  double unit_;                                     // of U
  std::vector<int32_t> first_;                      // [n] the cluster each vertex began in
  std::vector<int32_t> joined_;                     // [m] the cluster that each has joined, or itself
  std::vector<int64_t> sizes_;                      // [m]
  std::vector<Support> supports_;                   // [m]; for exact updates
  std::vector<std::vector<Neighbour>> neighbours_;  // [m]
  std::vector<Exchange> exchange_;                  // [m], zeros but for those touched
  std::vector<int32_t> touched_;
};

}  // namespace deepclust::cpu
