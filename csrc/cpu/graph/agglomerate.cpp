#include "agglomerate.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <tuple>

#include "nearest_centroids.h"
#include "tournament.h"

namespace deepclust::cpu {
namespace {

struct Best {
  int32_t cluster = -1;
  double affinity = 0.0;
};

// Scores of clusters, and the nearest cluster of each.
class Scores {
 public:
  Scores(const ClusterGraph& graph, int64_t m, const MergeRule& rule)
      : graph_(graph),
        lam_(rule.lam),
        kc_(rule.lam == 0.0 ? 1 : rule.kc),
        nearest_(static_cast<std::size_t>(m)),
        lowest_(static_cast<std::size_t>(m)),
        highest_(static_cast<std::size_t>(kc_)),
        scores_(m, kNone) {
    for (int32_t c = 0; c < m; ++c) update(c);
  }

  // The cluster with the highest score, or -1 where no cluster has a neighbour.
  int32_t best() const { return scores_.score(scores_.best()) > kNone ? scores_.best() : -1; }
  const Best& nearest(int32_t cluster) const { return nearest_[cluster]; }

  void remove(int32_t cluster) { scores_.set(cluster, kNone); }

  // Affinities below the kc highest had no part in the score, and have none.
  void update(const Touched& touched) {
    if (touched.highest >= lowest_[touched.cluster]) update(touched.cluster);
  }

  void update(int32_t cluster) {
    const Neighbours& neighbours = graph_.neighbours(cluster);
    Best nearest;
    int64_t count = 0;  // of the highest affinities, descending
    for (std::size_t i = 0; i < neighbours.size(); ++i) {
      const double value = neighbours.affinities[i];
      if (value > nearest.affinity || (value == nearest.affinity && neighbours.clusters[i] < nearest.cluster))
        nearest = {neighbours.clusters[i], value};
      if (count == kc_ && value <= highest_[count - 1]) continue;
      int64_t at = count < kc_ ? count++ : count - 1;
      for (; at > 0 && highest_[at - 1] < value; --at) highest_[at] = highest_[at - 1];
      highest_[at] = value;
    }
    nearest_[cluster] = nearest;
    lowest_[cluster] = count < kc_ ? 0.0 : highest_[count - 1];
    scores_.set(cluster, nearest.cluster < 0 ? kNone : score(count));
  }

 private:
  static constexpr double kNone = -1.0;  // below every score, since affinities of neighbours are positive

  double score(int64_t count) const {
    if (kc_ == 1) return highest_[0];
    double gaps = 0.0;
    for (int64_t k = 1; k < kc_; ++k) gaps += highest_[0] - (k < count ? highest_[k] : 0.0);
    return highest_[0] + lam_ * gaps / static_cast<double>(kc_ - 1);
  }

  const ClusterGraph& graph_;
  double lam_;
  int64_t kc_;
  std::vector<Best> nearest_;
  std::vector<double> lowest_;   // [m] of the kc highest affinities; 0 where there are fewer
  std::vector<double> highest_;  // scratch
  Tournament scores_;
};

}  // namespace

int64_t agglomerate(const KnnGraph& graph, const int64_t* labels, int64_t m, int64_t target, const MergeRule& rule,
                    const Points& points, const MergeTree& tree) {
  ClusterGraph clusters(graph, labels, m, rule.update);
  Scores scores(clusters, m, rule);
  std::optional<NearestCentroids> centroids;
  std::vector<int64_t> nodes(static_cast<std::size_t>(m));  // of the tree
  std::iota(nodes.begin(), nodes.end(), 0);

  int64_t merges = 0;
  for (; m - merges > target; ++merges) {
    int32_t a = scores.best(), b;
    double affinity = 0.0;
    if (a >= 0) {
      b = scores.nearest(a).cluster;
      affinity = scores.nearest(a).affinity;
    } else if (points.x != nullptr) {
      if (!centroids) {
        const std::vector<int32_t> now = clusters.labels();
        if (points.is_double)
          centroids.emplace(static_cast<const double*>(points.x), now.data(), graph.n, points.d, m);
        else
          centroids.emplace(static_cast<const float*>(points.x), now.data(), graph.n, points.d, m);
      }
      std::tie(a, b) = centroids->nearest_pair();
    } else {
      break;
    }
    if (b < a) std::swap(a, b);
    tree.children[2 * merges] = std::min(nodes[a], nodes[b]);
    tree.children[2 * merges + 1] = std::max(nodes[a], nodes[b]);
    tree.affinities[merges] = affinity;
    nodes[a] = m + merges;
    const std::vector<Touched>& touched = clusters.merge(a, b);
    if (centroids) centroids->merge(a, b);
    scores.remove(b);
    scores.update(a);
    for (const Touched& each : touched) scores.update(each);
  }
  return merges;
}

}  // namespace deepclust::cpu
