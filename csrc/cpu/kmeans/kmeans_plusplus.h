// k-means++ seeding, exactly distributed: each new seed is a point drawn with probability D^2 / sum D^2, D its distance
// from the seeds before it. Plain, not greedy: one draw a seed.
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

// Weights with the sums of blocks of them, in index order, to draw from.
template <typename T>
class Weights {
 public:
  static constexpr int64_t kBlock = kWeightBlock;
  std::vector<T> weight;

  explicit Weights(int64_t n) : weight(static_cast<size_t>(n), std::numeric_limits<T>::infinity()) {
    sums_.resize(ceil_div(weight.size(), kBlock));
  }
  int64_t size() const { return static_cast<int64_t>(weight.size()); }
  void sum_block(int64_t block) {
    double sum = 0.0;
    for (int64_t i = block * kBlock; i < std::min(size(), (block + 1) * kBlock); ++i) sum += at(i);
    sums_[static_cast<size_t>(block)] = sum;
  }
  void set(int64_t i, T value) {
    weight[static_cast<size_t>(i)] = value;
    sum_block(i / kBlock);
  }
  double at(int64_t i) const { return static_cast<double>(weight[static_cast<size_t>(i)]); }
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
  std::vector<double> sums_;
};

}  // namespace deepclust::cpu
