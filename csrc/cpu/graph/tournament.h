// The best of m scores that change one at a time: a tree of pairwise winners. An update costs log2 m comparisons, the
// memory is that of the scores, and ties go to the lowest index.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace deepclust::cpu {

class Tournament {
 public:
  explicit Tournament(int64_t count, double score) : scores_(static_cast<std::size_t>(count), score) {
    while (leaves_ < count) leaves_ *= 2;
    winner_.assign(static_cast<std::size_t>(2 * leaves_), -1);
    for (int64_t i = 0; i < count; ++i) winner_[leaves_ + i] = static_cast<int32_t>(i);
    for (int64_t node = leaves_ - 1; node > 0; --node) play(node);
  }

  int32_t best() const { return winner_[1]; }
  double score(int32_t index) const { return scores_[index]; }

  void set(int32_t index, double score) {
    if (scores_[index] == score) return;
    scores_[index] = score;
    for (int64_t node = (leaves_ + index) / 2; node > 0; node /= 2) {
      const int32_t before = winner_[node];
      play(node);
      // Neither the same nor a new winner: nothing changes above.
      if (winner_[node] == before && before != index) break;
    }
  }

 private:
  void play(int64_t node) {
    const int32_t left = winner_[2 * node], right = winner_[2 * node + 1];
    winner_[node] = right < 0 || (left >= 0 && scores_[left] >= scores_[right]) ? left : right;
  }

  int64_t leaves_ = 1;
  std::vector<double> scores_;
  std::vector<int32_t> winner_;  // [2 leaves], -1 beyond the last score
};

}  // namespace deepclust::cpu
