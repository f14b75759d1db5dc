// k-means++ over points made ready for the search: kmeans/kmeans_plusplus.h has the method.
#pragma once

#include "../kmeans/kmeans_plusplus.h"
#include "clustering.h"

namespace deepclust::cpu {

// Draws `clusters` points of one matrix.
template <typename T>
class Seeding {
 public:
  Seeding(const ReadyPoints<T>& ready, const double* weights, RandomStream random)
      : ready_(ready),
        points_(ready.points),
        random_(random),
        weighted_(weights != nullptr),
        draws_(points_.n, weights) {}

  void run(int64_t clusters, int64_t* seeds) {
    chosen_.assign(static_cast<size_t>(points_.n), false);
    int64_t done = 0;  // seeds that the weights know of
    for (int64_t k = 0; k < clusters; ++k) {
      seeds[k] = k == 0 ? first() : draw(seeds, done, k);
      chosen_[static_cast<size_t>(seeds[k])] = true;
      draws_.set(seeds[k], T(0));
      if (k + 1 < clusters && worth_a_pass(k + 1 - done, done)) {
        lower(seeds, done, k + 1);
        done = k + 1;
      }
    }
  }

 private:
  const T* row(int64_t i) const { return points_.x + i * points_.d; }

  void sum_all() {
    parallel_tasks(ceil_div(points_.n, Weights<T>::kBlock), points_.n, [&](int64_t block) { draws_.sum_block(block); });
  }

  // By weight, before any D^2 is known.
  int64_t first() {
    int64_t seed;
    if (weighted_) {
      sum_all();
      seed = draws_.find(random_.uniform() * draws_.total());
    } else {
      seed = random_.below(points_.n);
    }
    std::fill(draws_.squared.begin(), draws_.squared.end(), std::numeric_limits<T>::infinity());
    return seed;
  }

  // Brings the seeds [done, k) into all weights.
  void lower(const int64_t* seeds, int64_t done, int64_t k) {
    const int64_t d = points_.d;
    const Buffer<T> centroids((k - done) * d);
    for (int64_t i = done; i < k; ++i) std::copy(row(seeds[i]), row(seeds[i]) + d, centroids.get() + (i - done) * d);
    CodedCentroids<T> coded(points_, k - done);
    encode_all_centroids(points_, static_cast<const T*>(centroids.get()), coded);
    each_search(points_, coded.clusters, [&](int64_t begin, int64_t end) {
      lower_distances(points_, coded, begin, end, draws_.squared.data() + begin);
    });
    sum_all();
  }

  int64_t draw(const int64_t* seeds, int64_t& done, int64_t k) {
    for (int rejected = 0;; ++rejected) {
      if (rejected == kRejections && done < k) {
        lower(seeds, done, k);
        done = k;
      }
      const int64_t i = draws_.find(random_.uniform() * draws_.total());
      if (i < 0) return any_other(k);
      const T stale = draws_.squared[static_cast<size_t>(i)];
      T fresh = stale;
      for (int64_t j = done; j < k; ++j) fresh = std::min(fresh, squared_distance(row(i), row(seeds[j]), points_.d));
      if (fresh == stale || random_.uniform() * static_cast<double>(stale) < static_cast<double>(fresh)) return i;
      draws_.set(i, fresh);
    }
  }

  // Every point that counts coincides with a seed: one of the others, each equally likely; one of weight 0 last.
  int64_t any_other(int64_t k) {
    int64_t counting = 0;
    for (int64_t i = 0; i < points_.n; ++i) counting += !chosen_[static_cast<size_t>(i)] && draws_.counts(i);
    int64_t rank = random_.below(counting > 0 ? counting : points_.n - k);
    for (int64_t i = 0;; ++i)
      if (!chosen_[static_cast<size_t>(i)] && (counting == 0 || draws_.counts(i)) && rank-- == 0) return i;
  }

  const ReadyPoints<T>& ready_;
  const Points<T>& points_;
  RandomStream random_;
  bool weighted_;
  Weights<T> draws_;
  std::vector<bool> chosen_;
};

// The indices of `clusters` distinct points of matrix `batch`, in the order drawn; weights [n] or none.
template <typename T>
void draw_seeds(const ReadyPoints<T>& ready, const double* weights, int64_t seed, int64_t batch, int64_t clusters,
                int64_t* seeds) {
  const RandomStream random(static_cast<uint64_t>(seed), static_cast<uint64_t>(batch));
  Seeding<T>(ready, weights, random).run(clusters, seeds);
}

}  // namespace deepclust::cpu
