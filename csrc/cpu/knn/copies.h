// Rows of a graph that are copies of each other, as zero rows are: many at one distance are what no bound tells apart.
//
// Of a set of equal rows only the first k + 1 are searched. The others are as near to any row and have higher indices,
// so none of them is among a row's k nearest; and the k nearest of one of them are those of the last that is searched,
// for both have the first k before them at the same value. True of every metric, for values depend on rows alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

namespace deepclust::cpu {

struct Copies {
  std::vector<int32_t> kept;  // rows to search, in order
  std::vector<int32_t> like;  // [count]: which of those has the same nearest
};

// None where they are too few to be worth it. Rows lie `stride` apart.
template <typename T>
std::optional<Copies> find_copies(const T* rows, int64_t stride, int64_t count, int64_t depth, int64_t k) {
  constexpr int64_t kWorth = 16;  // one of so many rows
  if (k + 1 + count / kWorth > count) return std::nullopt;
  std::vector<std::pair<uint64_t, int32_t>> order(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    uint64_t hash = 0;
    for (int64_t j = 0; j < depth; ++j) {
      uint64_t bits = 0;
      std::memcpy(&bits, rows + i * stride + j, sizeof(T));
      hash = (hash ^ bits) * 0x9e3779b97f4a7c15u;
      hash ^= hash >> 29;
    }
    order[static_cast<size_t>(i)] = {hash, static_cast<int32_t>(i)};
  }
  std::sort(order.begin(), order.end());
  const auto equal = [&](int32_t a, int32_t b) {
    return std::memcmp(rows + a * stride, rows + b * stride, sizeof(T) * static_cast<size_t>(depth)) == 0;
  };
  Copies copies;
  copies.like.assign(static_cast<size_t>(count), -1);
  int64_t dropped = 0;
  for (size_t begin = 0, end; begin < order.size(); begin = end) {
    for (end = begin; end < order.size() && order[end].first == order[begin].first;) ++end;
    int64_t rank = 0;
    int32_t last = -1;
    for (size_t at = begin; at<end&& static_cast<int64_t>(end - begin)> k + 1; ++at) {
      const int32_t i = order[at].second;
      if (!equal(i, order[begin].second)) continue;
      if (rank++ <= k) last = i;
      if (rank <= k + 1) continue;
      copies.like[static_cast<size_t>(i)] = last;
      ++dropped;
    }
  }
  if (dropped < std::max<int64_t>(1, count / kWorth)) return std::nullopt;
  std::vector<int32_t> place(static_cast<size_t>(count), 0);
  for (int32_t i = 0; i < static_cast<int32_t>(count); ++i) {
    if (copies.like[static_cast<size_t>(i)] >= 0) continue;
    copies.like[static_cast<size_t>(i)] = i;
    place[static_cast<size_t>(i)] = static_cast<int32_t>(copies.kept.size());
    copies.kept.push_back(i);
  }
  for (int32_t& like : copies.like) like = place[static_cast<size_t>(like)];
  return copies;
}

}  // namespace deepclust::cpu
