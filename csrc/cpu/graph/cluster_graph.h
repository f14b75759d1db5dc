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

// The clusters that one has an affinity with, in no order. Apart, for most passes read one of the three.
struct Neighbours {
  std::vector<int32_t> clusters;
  std::vector<double> affinities;  // symmetric
  std::vector<Wide> given;         // U[this cluster, neighbour]; of parts by first size where sums slide

  std::size_t size() const { return clusters.size(); }
  void add(int32_t cluster, double affinity, Wide gives);
  void remove(std::size_t at);
};

// A cluster that a merge changed affinities of, and the highest that it had or has with the merged ones.
struct Touched {
  int32_t cluster;
  double highest;
};

class ClusterGraph {
 public:
  ClusterGraph(const KnnGraph& graph, const int64_t* labels, int64_t m, Update update);

  const Neighbours& neighbours(int32_t cluster) const { return neighbours_[cluster]; }

  // b joins a. What it returns, clusters other than a, stays until the next merge.
  const std::vector<Touched>& merge(int32_t a, int32_t b);

  // The cluster of each vertex now: the lowest index of those that have joined.
  std::vector<int32_t> labels();

 private:
  // What the cluster at hand and another one, c, give each other.
  struct Exchange {
    Wide given = 0;     // U[this, c]
    Wide received = 0;  // U[c, this]
    bool touched = false;
  };

  void add_links(const KnnGraph& graph, double unit);
  void find_neighbours();
  void join_supports(int32_t a, int32_t b);
  int32_t cluster_of(int32_t vertex);
  Exchange& touch(int32_t cluster);
  void forget_touched();
  double affinity(int32_t a, int32_t c) const;  // from exchange_[c]
  double share(Wide given, int64_t size) const;

  Update update_;
  double unit_;                         // of U
  std::vector<int32_t> first_;          // [n] the cluster each vertex began in
  std::vector<int32_t> joined_;         // [m] the cluster that each has joined, or itself
  std::vector<int64_t> sizes_;          // [m]
  std::vector<Support> supports_;       // [m]; for exact updates
  std::vector<Neighbours> neighbours_;  // [m]
  std::vector<Exchange> exchange_;      // [m], zeros but for those touched
  std::vector<Touched> touched_;
};

}  // namespace deepclust::cpu
