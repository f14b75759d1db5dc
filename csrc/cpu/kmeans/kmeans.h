// Lloyd's iterations: assign every point to its nearest centroid, move every centroid to the mean of its members.
//
//   S_k = sum over members of (x - mean),   c_k = mean + S_k / n_k,
//   objective = sum_i |x_i - c_{a(i)}|^2 = sum_i |y_i|^2 - 2 sum_k <z_k, S_k> + sum_k n_k |z_k|^2
//
// with y = x - mean and z = c - mean the side of the centroids that the assignment used. The S_k are exact integers
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
  double squares;              // sum of |y|^2
  T* centroids;                // [clusters, d]
  int64_t* sums;               // [clusters, ld]
  std::vector<int64_t> count;  // [clusters]
};

// The points whose label changed, and the counts with them.
template <typename T>
void count_moves(Clusters<T>& state, const int64_t* before, const int64_t* after, std::vector<Move>& moves) {
  moves.clear();
  for (int64_t i = 0; i < state.n; ++i) {
    if (before[i] == after[i]) continue;
    if (before[i] >= 0) --state.count[static_cast<size_t>(before[i])];
    ++state.count[static_cast<size_t>(after[i])];
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
    own += static_cast<double>(state.count[static_cast<size_t>(k)]) * square;
  }
  const double objective = state.squares - 2.0 * cross + own;
  return objective > 0.0 ? objective : 0.0;
}

// K sum n_k^2 / N^2: 1 for equal clusters, K for one that holds everything.
template <typename T>
double imbalance_of(const Clusters<T>& state) {
  double sum = 0.0;
  for (const int64_t count : state.count) sum += static_cast<double>(count) * static_cast<double>(count);
  return sum * static_cast<double>(state.clusters) / static_cast<double>(state.n) / static_cast<double>(state.n);
}

// Moves one point to each empty cluster as `rule` says; false where nothing was left to move. A point whose cluster
// has no other member stays, and so does one that lies on its centroid: a copy of a centroid wins no point.
template <typename T>
void seed_empty_clusters(Clusters<T>& state, EmptyRule rule, std::vector<T>& distance, int64_t* labels,
                         std::vector<Move>& moves) {
  const auto farthest = [&](int64_t of_cluster) {
    int64_t best = -1;
    T most = T(0);
    for (int64_t i = 0; i < state.n; ++i) {
      const bool eligible = of_cluster < 0 ? state.count[static_cast<size_t>(labels[i])] > 1 : labels[i] == of_cluster;
      if (eligible && distance[static_cast<size_t>(i)] > most) {
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
      const auto largest = std::max_element(state.count.begin(), state.count.end());
      if (*largest > 1) point = farthest(largest - state.count.begin());
    }
    if (point < 0) point = farthest(-1);
    if (point < 0) return;
    moves.push_back({point, static_cast<int32_t>(labels[point]), static_cast<int32_t>(k)});
    --state.count[static_cast<size_t>(labels[point])];
    ++state.count[static_cast<size_t>(k)];
    labels[point] = k;
    distance[static_cast<size_t>(point)] = T(0);
  }
}

// Moves centroid k to the mean of its members, on the unit sphere where `spherical`; the squared length of its step.
// An empty cluster's stays, and so does one whose members cancel out on the sphere.
template <typename T>
double move_centroid(const Clusters<T>& state, int64_t k, bool spherical, double* fresh) {
  const int64_t count = state.count[static_cast<size_t>(k)];
  if (count == 0) return 0.0;
  double norm = 0.0;
  for (int64_t j = 0; j < state.d; ++j) {
    const double sum = static_cast<double>(state.sums[k * state.ld + j]) / state.scale[j];
    fresh[j] = static_cast<double>(state.mean[j]) + sum / static_cast<double>(count);
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
    // The sums know their members to 1 / scale: what is less is their rounding, and a centroid that starts on its only
    // member stays there.
    if (std::abs(difference) * state.scale[j] <= 1.0) continue;
    step += difference * difference;
    centroid[j] = value;
  }
  return step;
}

}  // namespace deepclust::cpu
