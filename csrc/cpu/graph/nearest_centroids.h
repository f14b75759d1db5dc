// The nearest pair of centroids among clusters that merge: where no pair has an affinity left.
//
// Each cluster remembers its nearest one of a higher index. A merge costs a distance to every lower cluster and a row
// of them; a row whose nearest is gone is searched again only when its old distance, a lower bound, comes up as the
// least. Work: about C^2 d for C clusters; memory: 2 C d doubles. Ties go to the lowest pair.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "tournament.h"

namespace deepclust::cpu {

class NearestCentroids {
 public:
  // x [n, d]; clusters [n]: the cluster of each point, within [0, m). Members are added up in their order.
  template <typename T>
  NearestCentroids(const T* x, const int32_t* clusters, int64_t n, int64_t d, int64_t m);

  // Two clusters at least are left.
  std::pair<int32_t, int32_t> nearest_pair();
  // b joins a, the lower of the two.
  void merge(int32_t a, int32_t b);

 private:
  const double* centroid(int32_t cluster) const { return centroids_.data() + rows_[cluster] * d_; }
  double* sum(int32_t cluster) { return sums_.data() + rows_[cluster] * d_; }
  void divide(int32_t cluster);
  void search(int32_t cluster);
  void note(int32_t cluster, double distance, int32_t nearest);

  int64_t d_;
  std::vector<int64_t> rows_;      // [m] of its centroid
  std::vector<double> sums_;       // [C, d], of members
  std::vector<double> centroids_;  // [C, d]
  std::vector<double> sizes_;      // [m]
  std::vector<int32_t> alive_;     // ascending
  std::vector<int32_t> nearest_;   // [m]
  std::vector<char> stale_;        // [m] whether the distance is a lower bound only
  std::vector<double> distances_;  // scratch
  Tournament least_;               // of minus the distances
};

}  // namespace deepclust::cpu
