// Rows that are copies of each other, as zero rows are: many at one distance are what no bound tells apart.
//
// Of a set of equal rows only the first k are searched by queries, and the first k + 1 in a graph. The others are as
// near to any row and have higher indices, so none of them is among a row's k nearest; and the k nearest of one of them
// are those of the last that is searched, for both have the first k before them at the same value. Of a set of equal
// queries one is asked. True of every metric, for values depend on rows alone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "../../common/buffer.h"
#include "../../common/random.h"

namespace deepclust::cpu {

template <typename T>
struct Rows {
  const T* data;  // [count, depth], rows `stride` apart
  int64_t stride, count;
  const T* row(int64_t i) const { return data + i * stride; }
};

struct Copies {
  std::vector<int32_t> kept;  // rows to search, in order
  std::vector<int32_t> like;  // [count]: which of those has the same nearest
};

template <typename T>
uint64_t hash_of(const T* row, int64_t depth) {
  uint64_t hash = 0;
  for (int64_t j = 0; j < depth; ++j) {
    uint64_t bits = 0;
    std::memcpy(&bits, row + j, sizeof(T));
    hash = (hash ^ bits) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 29;
  }
  return hash;
}

// Whether there are sets of copies that are large for the number of rows, by a look at some rows anywhere.
template <typename T>
bool look_like_copies(const Rows<T>& x, int64_t depth) {
  constexpr int64_t kSample = 1024;
  RandomStream random(0, 0);
  std::vector<std::pair<uint64_t, int64_t>> seen;
  for (int64_t s = 0; s < std::min(kSample, x.count); ++s) {
    const int64_t i = x.count <= kSample ? s : random.below(x.count);
    seen.emplace_back(hash_of(x.row(i), depth), i);
  }
  std::sort(seen.begin(), seen.end());
  for (size_t s = 1; s < seen.size(); ++s)
    if (seen[s].first == seen[s - 1].first && seen[s].second != seen[s - 1].second) return true;
  return false;
}

// What remains if `most` of a set are kept; none where too few go to be worth it.
template <typename T>
std::optional<Copies> find_copies(const Rows<T>& x, int64_t depth, int64_t most) {
  constexpr int64_t kWorth = 16;  // one of so many rows
  const int64_t count = x.count;
  if (most + count / kWorth > count || !look_like_copies(x, depth)) return std::nullopt;
  std::vector<std::pair<uint64_t, int32_t>> order(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i)
    order[static_cast<size_t>(i)] = {hash_of(x.row(i), depth), static_cast<int32_t>(i)};
  std::sort(order.begin(), order.end());
  const auto equal = [&](int32_t a, int32_t b) {
    return std::memcmp(x.row(a), x.row(b), sizeof(T) * static_cast<size_t>(depth)) == 0;
  };
  Copies copies;
  copies.like.assign(static_cast<size_t>(count), -1);
  int64_t dropped = 0;
  for (size_t begin = 0, end; begin < order.size(); begin = end) {
    for (end = begin; end < order.size() && order[end].first == order[begin].first;) ++end;
    if (static_cast<int64_t>(end - begin) <= most) continue;
    int64_t rank = 0;
    int32_t last = -1;
    for (size_t at = begin; at < end; ++at) {
      const int32_t i = order[at].second;
      if (!equal(i, order[begin].second)) continue;
      if (rank++ < most) {
        last = i;
        continue;
      }
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

// Rows as they are searched: without copies where they have many.
template <typename T>
class Distinct {
 public:
  Distinct(const Rows<T>& x, int64_t depth, int64_t most, bool look)
      : all_(x),
        copies_(look ? find_copies(x, depth, most) : std::nullopt),
        memory_(copies_.has_value() ? static_cast<int64_t>(copies_->kept.size()) * depth : 0),
        depth_(depth) {
    for (size_t i = 0; copies_.has_value() && i < copies_->kept.size(); ++i) {
      const T* const row = x.row(copies_->kept[i]);
      std::copy(row, row + depth, memory_.get() + static_cast<int64_t>(i) * depth);
    }
  }
  bool has_copies() const { return copies_.has_value(); }
  Rows<T> rows() const {
    return has_copies() ? Rows<T>{memory_.get(), depth_, static_cast<int64_t>(copies_->kept.size())} : all_;
  }
  // The row of all that is row i of these.
  int64_t original(int64_t i) const { return has_copies() ? copies_->kept[static_cast<size_t>(i)] : i; }
  // The row of these that row i of all has the same nearest as.
  int64_t like(int64_t i) const { return has_copies() ? copies_->like[static_cast<size_t>(i)] : i; }

 private:
  Rows<T> all_;
  std::optional<Copies> copies_;
  Buffer<T> memory_;
  int64_t depth_;
};

}  // namespace deepclust::cpu
