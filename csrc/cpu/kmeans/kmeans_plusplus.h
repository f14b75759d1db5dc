// k-means++ seeding, exactly distributed: each new seed is a point drawn with probability w D^2 / sum w D^2, D its
// distance from the seeds before it and w its weight (1 where there are none); the first with probability w / sum w.
// Plain, not greedy: one draw a seed.
//
// Kept up to date for every point after every seed, D^2 would cost K passes over x. It may be stale instead, as an
// upper bound: draw a point by the stale value, compute its true one, and accept it with probability true / stale. That
// is rejection sampling, so the distribution is the exact one. Seeds collect until they are as many as those brought in
// before, and then all of D^2 is lowered in one pass of the search (kmeans/nearest.h). So K seeds cost log2 K passes
// over the codes of x, and in products no more than one assignment.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../../common/arithmetic.h"
#include "../../common/random.h"
#include "../../common/seeding_rule.h"
#include "nearest.h"

namespace deepclust::cpu {

// Squared distances D^2, and sums of blocks of w D^2, in index order, to draw from.
template <typename T>
class Weights {
 public:
  static constexpr int64_t kBlock = kWeightBlock;
  std::vector<T> squared;

  Weights(int64_t n, const double* weights) : squared(static_cast<size_t>(n), T(1)), weights_(weights) {
    sums_.resize(ceil_div(squared.size(), kBlock));
  }
  int64_t size() const { return static_cast<int64_t>(squared.size()); }
  void sum_block(int64_t block) {
    double sum = 0.0;
    for (int64_t i = block * kBlock; i < std::min(size(), (block + 1) * kBlock); ++i) sum += at(i);
    sums_[static_cast<size_t>(block)] = sum;
  }
  void set(int64_t i, T value) {
    squared[static_cast<size_t>(i)] = value;
    sum_block(i / kBlock);
  }
  bool counts(int64_t i) const { return weights_ == nullptr || weights_[i] > 0.0; }
  double at(int64_t i) const {
    const double own = static_cast<double>(squared[static_cast<size_t>(i)]);
    return weights_ == nullptr ? own : weights_[i] > 0.0 ? weights_[i] * own : 0.0;
  }
  double total() const {
    double sum = 0.0;
    for (const double part : sums_) sum += part;
    return sum;
  }
  // Where the running sum passes `target`; -1 where all weights are 0. Rounding may carry it past the end: then the
  // last weight that is not 0.
  int64_t find(double target) const {
    int64_t found = -1;
    double passed = 0.0;
    for (int64_t block = 0; block < static_cast<int64_t>(sums_.size()); ++block) {
      const double sum = sums_[static_cast<size_t>(block)];
      if (!(sum > 0.0)) continue;
      if (passed + sum <= target && block + 1 < static_cast<int64_t>(sums_.size())) {
        passed += sum;
        found = -2 - block;
        continue;
      }
      for (int64_t i = block * kBlock; i < std::min(size(), (block + 1) * kBlock); ++i) {
        if (!(at(i) > 0.0)) continue;
        passed += at(i);
        found = i;
        if (passed > target) return i;
      }
    }
    if (found >= -1) return found;
    const int64_t block = -2 - found;  // nothing but zeros after it
    for (int64_t i = std::min(size(), (block + 1) * kBlock) - 1; i >= block * kBlock; --i)
      if (at(i) > 0.0) return i;
    return -1;
  }

 private:
  const double* weights_;
  std::vector<double> sums_;
};

}  // namespace deepclust::cpu
