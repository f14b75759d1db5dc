// Lloyd's iterations: assign every point to its nearest centroid, move every centroid to the mean of its members.
//
//   S_k = sum over members of w (x - mean),   W_k = sum of w,   c_k = mean + S_k / W_k,
//   objective = sum_i w_i |x_i - c_{a(i)}|^2 = sum_i w_i |y_i|^2 - 2 sum_k <z_k, S_k> + sum_k W_k |z_k|^2
//
// with y = x - mean and z = c - mean the side of the centroids that the assignment used, and all w 1 where there are no
// weights. A point of weight 0 gets a label and is no member of any cluster. S_k and W_k are exact integers
// (kmeans/cluster_sums.h) to which only points that moved are added, so an iteration reads the codes of x, a quarter of
// its bytes, and the rows that are in doubt or moved. In double and about the mean of the data the objective's
// cancellation is harmless: its error is about 1e-13 of the objective of a single cluster.
//
// Work: N K d 8-bit multiply-adds bound an iteration from some hundred clusters on, reading the codes below.
#pragma once

#include <cmath>
#include <vector>

#include "../../common/empty_rule.h"
#include "cluster_sums.h"
#include "nearest.h"

namespace deepclust::cpu {

// What the iterations carry for one matrix of points.
template <typename T>
struct Clusters {
  int64_t clusters, n, d, ld;
  const T* mean;               // [d]
  const double* scale;         // [d] of the integer sums
  const double* weights;       // [n] in [0, 1], or none
  double unit;                 // of W_k, a power of two
  double squares;              // sum of |y|^2
  T* centroids;                // [clusters, d]
  int64_t* sums;               // [clusters, ld]
  std::vector<int64_t> count;  // [clusters]: members
  std::vector<int64_t> total;  // [clusters]: W_k in units

  int64_t units(int64_t point) const { return weights == nullptr ? 1 : weight_units(weights[point], unit); }
  double weight_of(int64_t k) const { return static_cast<double>(total[static_cast<size_t>(k)]) * unit; }
  // Takes `point` out of cluster `from`, if any, and into `to`.
  void move(int64_t point, int64_t from, int64_t to) {
    const int64_t own = units(point);
    if (own == 0) return;
    if (from >= 0) --count[static_cast<size_t>(from)], total[static_cast<size_t>(from)] -= own;
    ++count[static_cast<size_t>(to)], total[static_cast<size_t>(to)] += own;
  }
};

// The points whose label changed, and the counts with them.
template <typename T>
void count_moves(Clusters<T>& state, const int64_t* before, const int64_t* after, std::vector<Move>& moves) {
  moves.clear();
  for (int64_t i = 0; i < state.n; ++i) {
    if (before[i] == after[i]) continue;
    state.move(i, before[i], after[i]);
    moves.push_back({i, static_cast<int32_t>(before[i]), static_cast<int32_t>(after[i])});
  }
}

template <typename T>
double objective_of(const Clusters<T>& state) {
  double cross = 0.0, own = 0.0;
  for (int64_t k = 0; k < state.clusters; ++k) {
    const int64_t* sum = state.sums + k * state.ld;
    double product = 0.0, square = 0.0;
    for (int64_t j = 0; j < state.d; ++j) {
      const double z = static_cast<double>(state.centroids[k * state.d + j]) - static_cast<double>(state.mean[j]);
      product += z * (static_cast<double>(sum[j]) / state.scale[j]);
      square += z * z;
    }
    cross += product;
    own += state.weight_of(k) * square;
  }
  const double objective = state.squares - 2.0 * cross + own;
  return objective > 0.0 ? objective : 0.0;
}

// K sum W_k^2 / W^2: 1 for equal clusters, K for one that holds everything.
template <typename T>
double imbalance_of(const Clusters<T>& state) {
  double squares = 0.0, all = 0.0;
  for (int64_t k = 0; k < state.clusters; ++k) {
    const double weight = state.weight_of(k);
    squares += weight * weight;
    all += weight;
  }
  return squares * static_cast<double>(state.clusters) / all / all;
}

// Moves one point to each empty cluster as `rule` says; false where nothing was left to move. A point whose cluster
// has no other member stays, and so does one that lies on its centroid: a copy of a centroid wins no point. The largest
// cluster is the heaviest one.
template <typename T>
void seed_empty_clusters(Clusters<T>& state, EmptyRule rule, std::vector<T>& distance, int64_t* labels,
                         std::vector<Move>& moves) {
  const auto farthest = [&](int64_t of_cluster) {
    int64_t best = -1;
    T most = T(0);
    for (int64_t i = 0; i < state.n; ++i) {
      const bool eligible = of_cluster < 0 ? state.count[static_cast<size_t>(labels[i])] > 1 : labels[i] == of_cluster;
      if (eligible && distance[static_cast<size_t>(i)] > most && state.units(i) > 0) {
        best = i;
        most = distance[static_cast<size_t>(i)];
      }
    }
    return best;
  };
  for (int64_t k = 0; k < state.clusters; ++k) {
    if (state.count[static_cast<size_t>(k)] > 0) continue;
    int64_t point = -1;
    if (rule == EmptyRule::kSplit) {
      const auto largest = std::max_element(state.total.begin(), state.total.end()) - state.total.begin();
      if (state.count[static_cast<size_t>(largest)] > 1) point = farthest(largest);
    }
    if (point < 0) point = farthest(-1);
    if (point < 0) return;
    moves.push_back({point, static_cast<int32_t>(labels[point]), static_cast<int32_t>(k)});
    state.move(point, labels[point], k);
    labels[point] = k;
    distance[static_cast<size_t>(point)] = T(0);
  }
}

// Moves centroid k to the mean of its members, on the unit sphere where `spherical`; the squared length of its step.
// An empty cluster's stays, and so does one whose members cancel out on the sphere.
template <typename T>
double move_centroid(const Clusters<T>& state, int64_t k, bool spherical, double* fresh) {
  const double count = static_cast<double>(state.count[static_cast<size_t>(k)]), weight = state.weight_of(k);
  if (count == 0.0) return 0.0;
  double norm = 0.0;
  for (int64_t j = 0; j < state.d; ++j) {
    const double sum = static_cast<double>(state.sums[k * state.ld + j]) / state.scale[j];
    fresh[j] = static_cast<double>(state.mean[j]) + sum / weight;
    norm += fresh[j] * fresh[j];
  }
  if (spherical) {
    norm = std::sqrt(norm);
    if (!(norm > 1e-12)) return 0.0;
    for (int64_t j = 0; j < state.d; ++j) fresh[j] /= norm;
  }
  double step = 0.0;
  T* centroid = state.centroids + k * state.d;
  for (int64_t j = 0; j < state.d; ++j) {
    const T value = static_cast<T>(fresh[j]);
    const double difference = static_cast<double>(value) - static_cast<double>(centroid[j]);
    // The sums know a member to 1 / scale: what is less is their rounding, and a centroid that starts on its only
    // member stays there.
    if (std::abs(difference) * state.scale[j] * weight <= count) continue;
    step += difference * difference;
    centroid[j] = value;
  }
  return step;
}

}  // namespace deepclust::cpu
