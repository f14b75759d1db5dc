// k-means++ over points made ready for the search: kmeans/kmeans_plusplus.h has the method.
#pragma once

#include "../kmeans/kmeans_plusplus.h"
#include "clustering.h"

namespace deepclust::cpu {

// Draws `clusters` points of one matrix.
template <typename T>
class Seeding {
 public:
  Seeding(const ReadyPoints<T>& ready, RandomStream random)
      : ready_(ready), points_(ready.points), random_(random), weights_(points_.n) {}

  void run(int64_t clusters, int64_t* seeds) {
    chosen_.assign(static_cast<size_t>(points_.n), false);
    int64_t done = 0;  // seeds that the weights know of
    for (int64_t k = 0; k < clusters; ++k) {
      seeds[k] = k == 0 ? random_.below(points_.n) : draw(seeds, done, k);
      chosen_[static_cast<size_t>(seeds[k])] = true;
      weights_.set(seeds[k], T(0));
      if (k + 1 < clusters && worth_a_pass(k + 1 - done, done)) {
        lower(seeds, done, k + 1);
        done = k + 1;
      }
    }
  }

 private:
  const T* row(int64_t i) const { return points_.x + i * points_.d; }

  // Brings the seeds [done, k) into all weights.
  void lower(const int64_t* seeds, int64_t done, int64_t k) {
    const int64_t d = points_.d;
    const Buffer<T> centroids((k - done) * d);
    for (int64_t i = done; i < k; ++i) std::copy(row(seeds[i]), row(seeds[i]) + d, centroids.get() + (i - done) * d);
    CodedCentroids<T> coded(points_, k - done);
    encode_all_centroids(points_, static_cast<const T*>(centroids.get()), coded);
    each_search(points_, coded.clusters, [&](int64_t begin, int64_t end) {
      lower_distances(points_, coded, begin, end, weights_.weight.data() + begin);
    });
    parallel_tasks(ceil_div(points_.n, Weights<T>::kBlock), points_.n,
                   [&](int64_t block) { weights_.sum_block(block); });
  }

  int64_t draw(const int64_t* seeds, int64_t& done, int64_t k) {
    for (int rejected = 0;; ++rejected) {
      if (rejected == kRejections && done < k) {
        lower(seeds, done, k);
        done = k;
      }
      const int64_t i = weights_.find(random_.uniform() * weights_.total());
      if (i < 0) return any_other(k);
      const double stale = weights_.at(i);
      T weight = weights_.weight[static_cast<size_t>(i)];
      for (int64_t j = done; j < k; ++j) weight = std::min(weight, squared_distance(row(i), row(seeds[j]), points_.d));
      if (static_cast<double>(weight) == stale || random_.uniform() * stale < static_cast<double>(weight)) return i;
      weights_.set(i, weight);
    }
  }

  // Every point coincides with a seed: one of the others, each equally likely.
  int64_t any_other(int64_t k) {
    int64_t rank = random_.below(points_.n - k);
    for (int64_t i = 0;; ++i)
      if (!chosen_[static_cast<size_t>(i)] && rank-- == 0) return i;
  }

  const ReadyPoints<T>& ready_;
  const Points<T>& points_;
  RandomStream random_;
  Weights<T> weights_;
  std::vector<bool> chosen_;
};

// The indices of `clusters` distinct points of matrix `batch`, in the order drawn.
template <typename T>
void draw_seeds(const ReadyPoints<T>& ready, int64_t seed, int64_t batch, int64_t clusters, int64_t* seeds) {
  Seeding<T>(ready, RandomStream(static_cast<uint64_t>(seed), static_cast<uint64_t>(batch))).run(clusters, seeds);
}

}  // namespace deepclust::cpu
