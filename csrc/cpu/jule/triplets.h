// The samples of a batch by label, and the negatives of a pair: common/triplet_rule.h has the rule.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../../common/triplet_rule.h"

namespace deepclust::cpu {

// A batch in the order (label, index).
class LabelOrder {
 public:
  std::vector<int32_t> order;  // sample at each place
  std::vector<int32_t> place;  // of each sample
  std::vector<int32_t> begin;  // of each sample: the first place of its label
  std::vector<int32_t> end;    // and the place behind the last
  int64_t labels = 0;
  int64_t pairs = 0;  // of two samples with one label

  LabelOrder(const int64_t* label, int64_t size)
      : order(static_cast<size_t>(size)), place(order.size()), begin(order.size()), end(order.size()) {
    for (int64_t i = 0; i < size; ++i) order[static_cast<size_t>(i)] = static_cast<int32_t>(i);
    std::sort(order.begin(), order.end(),
              [label](int32_t i, int32_t j) { return label[i] < label[j] || (label[i] == label[j] && i < j); });
    for (int64_t first = 0, last; first < size; first = last) {
      for (last = first; last < size && label[at(last)] == label[at(first)]; ++last) {
      }
      for (int64_t k = first; k < last; ++k) {
        const auto i = static_cast<size_t>(at(k));
        place[i] = static_cast<int32_t>(k);
        begin[i] = static_cast<int32_t>(first);
        end[i] = static_cast<int32_t>(last);
      }
      ++labels;
      pairs += (last - first) * (last - first - 1) / 2;
    }
  }
  int64_t size() const { return static_cast<int64_t>(order.size()); }
  int32_t at(int64_t place) const { return order[static_cast<size_t>(place)]; }
};

// Draws the negatives of one pair after another.
class NegativeSampler {
 public:
  NegativeSampler(const LabelOrder& batch, int64_t seed, int64_t negatives)
      : batch_(batch), seed_(seed), negatives_(negatives), taken_(batch.order.size(), -1) {}

  // Appends the pair's negatives to `out`. No two pairs may have the same number `pair`.
  void draw(int64_t anchor, int64_t positive, int64_t pair, std::vector<int32_t>& out) {
    const int64_t begin = batch_.begin[static_cast<size_t>(anchor)], end = batch_.end[static_cast<size_t>(anchor)];
    const int64_t first = batch_.size() - (end - begin) - negatives_;
    RandomStream random = pair_stream(seed_, anchor, positive, batch_.size());
    for (int64_t i = 0; i < negatives_; ++i) {
      int64_t rank = random.below(first + i + 1);
      if (taken_[static_cast<size_t>(rank)] == pair) rank = first + i;
      taken_[static_cast<size_t>(rank)] = pair;
      out.push_back(batch_.at(place_of_other(rank, begin, end)));
    }
  }

 private:
  const LabelOrder& batch_;
  int64_t seed_, negatives_;
  std::vector<int64_t> taken_;  // [ranks]: the last pair that took each
};

}  // namespace deepclust::cpu
