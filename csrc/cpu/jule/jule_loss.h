// jule_loss on the CPU: the mean over triplets (a, p, n) of max(0, gamma |a - p|^2 - |a - n|^2 + margin), and its
// gradient.
//
// A triplet that counts pulls its pair with gamma (z_a - z_p) and pushes its negative with z_n - z_a. So all triplets
// of an anchor a are a weight for each sample j that they meet: how many of them count, times gamma or -1. The gradient
// is 2 / triplets times the sum over edges (a, j) of weight (z_a - z_j), taken from j and given to a. A distance is
// computed once an anchor, however many of its pairs drew the sample, and nothing of the size of the triplets is kept
// but the indices of one anchor's.
//
// Work: at most B^2 / 2 distances and B^2 / 2 edges of d each, fewer where few pairs share a label. At (100, 160), 17
// labels: 4,700 triplets, 3,900 distances; a third of the time each for drawing, distances and edges.
// Tasks: anchors in turn (the early ones have more pairs), at most kMostTasks, each with a gradient [B, d] of its own.
#pragma once

#include <cstring>

#include "../../common/arithmetic.h"
#include "edges.h"
#include "triplets.h"

namespace deepclust::cpu {

inline constexpr int64_t kMostTasks = 8;

template <typename T>
struct JuleProblem {
  const T* z;  // [B, d]
  int64_t size, d;
  double gamma, margin;
  int64_t seed, n_negatives;
  LabelOrder batch;

  int64_t negatives() const { return std::max<int64_t>(0, std::min(n_negatives, batch.labels - 1)); }  // of each pair
  int64_t triplets() const { return batch.pairs * negatives(); }
  int64_t tasks() const { return std::clamp<int64_t>(size / 32, 1, kMostTasks); }
  int64_t work() const { return 3 * std::min(triplets() + batch.pairs, size * size / 2) * d; }
};

// One task's anchors, one after another.
template <typename T>
class AnchorTask {
 public:
  AnchorTask(const JuleProblem<T>& problem, T* gradient)
      : problem_(problem),
        sampler_(problem.batch, problem.seed, problem.negatives()),
        gradient_(gradient),
        met_at_(problem.batch.order.size(), -1),
        counted_(problem.batch.order.size()),
        distance_(problem.batch.order.size()) {}

  // The sum over the anchor's triplets; their gradient is added to `gradient`, less the factor 2 / triplets.
  double run(int64_t anchor) {
    const LabelOrder& batch = problem_.batch;
    const int64_t first = batch.place[static_cast<size_t>(anchor)] + 1, last = batch.end[static_cast<size_t>(anchor)];
    if (first == last) return 0.0;
    met_.clear();
    negative_.clear();
    for (int64_t place = first; place < last; ++place) {
      meet(anchor, batch.at(place));
      sampler_.draw(anchor, batch.at(place), anchor * problem_.size + batch.at(place), negative_);
    }
    const auto positives = static_cast<int64_t>(met_.size());
    for (const int32_t negative : negative_) meet(anchor, negative);
    const auto met = static_cast<int64_t>(met_.size());
    listed_distances(problem_.z, problem_.d, anchor, met_.data(), met, distance_.data());
    const double sum = count_triplets(first, last);
    keep_counted(positives);
    add_edges(problem_.z, problem_.d, anchor, met_.data(), weight_.data(), static_cast<int64_t>(weight_.size()),
              gradient_);
    return sum;
  }

 private:
  void meet(int64_t anchor, int32_t sample) {
    const auto i = static_cast<size_t>(sample);
    if (met_at_[i] == anchor) return;
    met_at_[i] = static_cast<int32_t>(anchor);
    counted_[i] = 0;
    met_.push_back(sample);
  }
  // How many triplets count, for each sample they meet.
  double count_triplets(int64_t first, int64_t last) {
    const T gamma = static_cast<T>(problem_.gamma), margin = static_cast<T>(problem_.margin);
    const int64_t negatives = problem_.negatives();
    double sum = 0.0;
    const int32_t* negative = negative_.data();
    for (int64_t place = first; place < last; ++place) {
      const auto positive = static_cast<size_t>(problem_.batch.at(place));
      const T limit = gamma * distance_[positive] + margin;
      int64_t counted = 0;
      for (int64_t i = 0; i < negatives; ++i, ++negative) {
        const T excess = limit - distance_[static_cast<size_t>(*negative)];
        if (excess <= T(0)) continue;  // NaN counts, and shows
        sum += static_cast<double>(excess);
        ++counted_[static_cast<size_t>(*negative)];
        ++counted;
      }
      counted_[positive] = counted;
    }
    return sum;
  }
  // Leaves the samples of triplets that count in `met_`, with their weights.
  void keep_counted(int64_t positives) {
    weight_.clear();
    for (size_t i = 0; i < met_.size(); ++i) {
      const auto counted = static_cast<T>(counted_[static_cast<size_t>(met_[i])]);
      if (counted == T(0)) continue;
      met_[weight_.size()] = met_[i];
      weight_.push_back(static_cast<int64_t>(i) < positives ? static_cast<T>(problem_.gamma) * counted : -counted);
    }
  }

  const JuleProblem<T>& problem_;
  NegativeSampler sampler_;
  T* gradient_;                    // [B, d]
  std::vector<int32_t> met_at_;    // [B]: the last anchor that met each sample
  std::vector<int64_t> counted_;   // [B]
  std::vector<T> distance_;        // [B]
  std::vector<int32_t> met_;       // samples that the anchor meets, its positives first
  std::vector<int32_t> negative_;  // the negatives of its pairs, one pair after another
  std::vector<T> weight_;          // of each sample kept in met_
};

// Anchors task, task + tasks, ..: `gradient` [B, d] is set.
template <typename T>
double anchor_task(const JuleProblem<T>& problem, int64_t task, T* gradient) {
  std::memset(gradient, 0, sizeof(T) * static_cast<size_t>(problem.size * problem.d));
  AnchorTask<T> anchors(problem, gradient);
  double sum = 0.0;
  for (int64_t anchor = task; anchor < problem.size; anchor += problem.tasks()) sum += anchors.run(anchor);
  return sum;
}

}  // namespace deepclust::cpu
