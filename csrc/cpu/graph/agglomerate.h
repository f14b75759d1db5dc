// Greedy merging of the clusters of a k-NN graph by JULE's criterion (Yang, Parikh, Batra 2016): the cluster i with the
// highest score
//
//   S_i = A_i[1] + lam / (kc - 1) sum_{k = 2..kc} (A_i[1] - A_i[k]),   A_i the affinities of i, descending, then zeros,
//
// joins its nearest cluster. Neighbours on either side of the index order count; ties go to the smallest i, then to the
// smallest j, where a merged cluster keeps the lower index of its two.
//
// A merge changes affinities with the merged cluster alone, so the scores of its neighbours are all that is looked at
// again, each by one pass over its own neighbours. Sequential; about E log E steps where clusters have few neighbours.
#pragma once

#include <cstdint>

#include "cluster_graph.h"

namespace deepclust::cpu {

struct MergeRule {
  int64_t kc;
  double lam;
  Update update;
};

// What clusters without an affinity are merged by; x is null for stopping there.
struct Points {
  const void* x;  // [n, d]
  int64_t d;
  bool is_double;
};

// The merge tree: children [m - 1, 2], where the t-th merge makes m + t and the lower child comes first, and the
// affinity of each pair.
struct MergeTree {
  int64_t* children;
  double* affinities;
};

// Merges until `target` clusters are left, or none can be merged, and returns the number of merges made.
int64_t agglomerate(const KnnGraph& graph, const int64_t* labels, int64_t m, int64_t target, const MergeRule& rule,
                    const Points& points, const MergeTree& tree);

}  // namespace deepclust::cpu
