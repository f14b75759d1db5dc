// Groups of rows where one centre does not suit all: groups far apart, or a few rows far from the rest.
//
// The filter's bounds are of rows less a centre, and err by a share of their distance from it. One row at 1e6 moves the
// mean far from all others, and two groups 30 apart lie far from theirs: then the bounds tell nobody apart. So where
// the rows gather about centres of their own, every group is searched by itself, about its own mean. What it finds for
// a row stands where the triangle says that no row of another group h is as near,
//
//   |x - c_h| - r_h  >  the k-th distance,   r_h the largest distance of a row of h from c_h,
//
// and the few rows for which it does not hold are asked again among all. Strays, far from every centre or in a group of
// few, are compared with every row. Queries ask the group whose centre is nearest. Values are computed by costs_of()
// from the same rows: not a bit depends on groups.
//
// Finding them costs a look at 256 rows: seeds as far from each other as can be, two of Lloyd's iterations, and seeds
// that are near for their radius count as one. Only where the usual distance from a row's own centre is less than a
// quarter of that from the mean are all rows assigned, at n G d multiply-adds for G groups.
#pragma once

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "../../common/random.h"
#include "lists.h"

namespace deepclust::cpu {

inline constexpr int64_t kGroupedRows = 2048;  // a graph of fewer is not worth a look
inline constexpr int64_t kGroupSample = 256;
inline constexpr int64_t kMostGroups = 32;
inline constexpr int64_t kFewestMembers = 64;

// Whether a search is so much work that a look at the rows costs little beside it.
inline bool worth_a_look(int64_t asked, int64_t points) {
  return points >= kGroupedRows && asked * points >= kGroupedRows * kGroupedRows / 8;
}

// Where rows gather.
struct Groups {
  int64_t depth = 0;
  std::vector<float> centres;                 // [groups, depth]
  std::vector<std::vector<int32_t>> members;  // of every group, in order; of a group of strays none
  std::vector<int32_t> strays;                // in order
  std::vector<float> radius;                  // [groups]: no member is farther from the centre

  int64_t count() const { return static_cast<int64_t>(members.size()); }
  const float* centre(int64_t g) const { return centres.data() + g * depth; }
};

// A computed squared distance as a distance, with the roundings of the square to either side.
inline float distance_above(float squared, int64_t depth) {
  return std::sqrt(squared) * (1 + static_cast<float>(depth + 8) * 0x1p-22f) + 0x1p-60f;
}
inline float distance_below(float squared, int64_t depth) {
  return std::sqrt(squared) * (1 - static_cast<float>(depth + 8) * 0x1p-22f) - 0x1p-60f;
}

class GroupFinder {
 public:
  GroupFinder(const PackedPoints<float>& points, const float* mean) : points_(points), mean_(mean) {}

  // The centres, without members; none where one centre does for all.
  std::optional<Groups> centres() {
    RandomStream random(0, 0);  // at even steps, rows in turns would look like one group
    for (int64_t s = 0; s < kGroupSample; ++s) sample_.push_back(static_cast<int32_t>(random.below(points_.count)));
    const float about_mean = usual([&](const float* row) { return squared_distance(row, mean_); });
    Groups groups;
    // Seeds are farther than means, but not by so much: most data end here.
    if (!(4 * spread_seeds(groups) < about_mean)) return std::nullopt;
    for (int step = 0; step < 2; ++step) move_to_means(groups);
    while (join_near(groups)) move_to_means(groups);
    const float about_own = usual([&](const float* row) { return nearest(groups, row).second; });
    if (!(16 * about_own < about_mean)) return std::nullopt;
    return groups;
  }

  // The nearest centre and the squared distance to it.
  std::pair<int64_t, float> nearest(const Groups& groups, const float* row) const {
    int64_t best = 0;
    float least = std::numeric_limits<float>::infinity();
    for (int64_t g = 0; g < static_cast<int64_t>(groups.centres.size()) / groups.depth; ++g) {
      const float squared = squared_distance(row, groups.centre(g));
      if (squared < least) best = g, least = squared;
    }
    return {best, least};
  }

 private:
  float squared_distance(const float* a, const float* b) const {
    const int32_t first = 0;
    float squared;
    costs_of(true, a, b, 0, points_.depth, &first, 1, &squared);
    return squared;
  }

  static float middle(std::vector<float>& values) {
    const auto at = values.begin() + static_cast<int64_t>(values.size() / 2);
    std::nth_element(values.begin(), at, values.end());
    return *at;
  }
  template <typename F>
  float usual(const F& squared_distance_of) const {
    std::vector<float> found;
    for (const int32_t i : sample_) found.push_back(squared_distance_of(points_.row(i)));
    return middle(found);
  }

  // Rows of the sample as centres, each as far as can be from those before; the usual squared distance to them.
  float spread_seeds(Groups& groups) const {
    groups.depth = points_.depth;
    std::vector<float> squared(sample_.size(), std::numeric_limits<float>::infinity());
    size_t next = 0;
    for (int64_t g = 0; g < kMostGroups && squared[next] > 0; ++g) {
      const float* const seed = points_.row(sample_[next]);
      groups.centres.insert(groups.centres.end(), seed, seed + points_.depth);
      for (size_t s = 0; s < sample_.size(); ++s)
        squared[s] = std::min(squared[s], squared_distance(points_.row(sample_[s]), seed));
      next = static_cast<size_t>(std::max_element(squared.begin(), squared.end()) - squared.begin());
    }
    return middle(squared);
  }

  // Centres become the means of the sample's rows about them; one without any is dropped.
  void move_to_means(Groups& groups) const {
    const int64_t count = static_cast<int64_t>(groups.centres.size()) / groups.depth, d = groups.depth;
    std::vector<double> sums(groups.centres.size(), 0.0);
    std::vector<int64_t> sizes(static_cast<size_t>(count), 0);
    for (const int32_t i : sample_) {
      const int64_t g = nearest(groups, points_.row(i)).first;
      ++sizes[static_cast<size_t>(g)];
      for (int64_t j = 0; j < d; ++j) sums[static_cast<size_t>(g * d + j)] += points_.row(i)[j];
    }
    std::vector<float> moved;
    for (int64_t g = 0; g < count; ++g)
      for (int64_t j = 0; j < d && sizes[static_cast<size_t>(g)] > 0; ++j)
        moved.push_back(static_cast<float>(sums[static_cast<size_t>(g * d + j)] /
                                           static_cast<double>(sizes[static_cast<size_t>(g)])));
    groups.centres = std::move(moved);
  }

  // Drops the first centre that is nearer to another than once and a half their radii; whether there was one.
  bool join_near(Groups& groups) const {
    const int64_t count = static_cast<int64_t>(groups.centres.size()) / groups.depth;
    std::vector<float> radius(static_cast<size_t>(count), 0.0f);
    for (const int32_t i : sample_) {
      const auto [g, squared] = nearest(groups, points_.row(i));
      radius[static_cast<size_t>(g)] = std::max(radius[static_cast<size_t>(g)], std::sqrt(squared));
    }
    for (int64_t g = 0; g < count; ++g)
      for (int64_t h = g + 1; h < count; ++h) {
        const float reach = 1.5f * (radius[static_cast<size_t>(g)] + radius[static_cast<size_t>(h)]);
        if (squared_distance(groups.centre(g), groups.centre(h)) > reach * reach) continue;
        groups.centres.erase(groups.centres.begin() + h * groups.depth,
                             groups.centres.begin() + (h + 1) * groups.depth);
        return true;
      }
    return false;
  }

  const PackedPoints<float>& points_;
  const float* mean_;
  std::vector<int32_t> sample_;
};

// Members, strays and radii, from the nearest centre [n] of every row and its squared distance [n]; whether the groups
// are worth it, with few strays.
inline bool divide(Groups& groups, const std::vector<int32_t>& nearest, const std::vector<float>& squared, int64_t k) {
  const size_t n = nearest.size(), count = groups.centres.size() / static_cast<size_t>(groups.depth);
  std::vector<float> limit(count);
  groups.members.resize(count);
  groups.radius.assign(count, 0.0f);
  std::vector<std::vector<float>> found(count);
  for (size_t i = 0; i < n; ++i) found[static_cast<size_t>(nearest[i])].push_back(squared[i]);
  for (size_t g = 0; g < count; ++g) {
    limit[g] = -1;
    if (static_cast<int64_t>(found[g].size()) < std::max(k + 1, kFewestMembers)) continue;
    const auto middle = found[g].begin() + static_cast<int64_t>(found[g].size() / 2);
    std::nth_element(found[g].begin(), middle, found[g].end());
    limit[g] = 16 * *middle;
  }
  for (size_t i = 0; i < n; ++i) {
    const size_t g = static_cast<size_t>(nearest[i]);
    if (squared[i] <= limit[g]) {
      groups.members[g].push_back(static_cast<int32_t>(i));
      groups.radius[g] = std::max(groups.radius[g], distance_above(squared[i], groups.depth));
    } else {
      groups.strays.push_back(static_cast<int32_t>(i));
    }
  }
  for (const auto& members : groups.members)
    if (!members.empty() && static_cast<int64_t>(members.size()) <= k) return false;
  return groups.strays.size() <= 16 + n / 128;
}

// Whether no member of a group but `own` can be as near to a row as `kth`, a squared distance.
inline bool alone(const Groups& groups, int64_t own, const float* row, float kth) {
  const float reach = distance_above(kth, groups.depth);
  const int32_t first = 0;
  for (int64_t h = 0; h < groups.count(); ++h) {
    if (h == own || groups.members[static_cast<size_t>(h)].empty()) continue;
    float squared;
    costs_of(true, row, groups.centre(h), 0, groups.depth, &first, 1, &squared);
    if (!(distance_below(squared, groups.depth) - groups.radius[static_cast<size_t>(h)] > reach * 1.000001f))
      return false;
  }
  return true;
}

// Brings the strays into a row's k nearest, which are in order. The row is none of them.
inline void offer_strays(const Groups& groups, const PackedPoints<float>& points, const float* row, int64_t k,
                         float* values, int64_t* indices) {
  const int64_t strays = static_cast<int64_t>(groups.strays.size());
  const Buffer<float> costs(strays);
  costs_of(true, row, points.rows, points.row_stride, points.depth, groups.strays.data(), strays, costs.get());
  for (int64_t s = 0; s < strays; ++s) {
    const int64_t j = groups.strays[static_cast<size_t>(s)];
    const auto before = [&](int64_t at) {
      return costs.get()[s] < values[at] || (costs.get()[s] == values[at] && j < indices[at]);
    };
    if (!before(k - 1)) continue;
    int64_t at = k - 1;
    for (; at > 0 && before(at - 1); --at) {
      values[at] = values[at - 1];
      indices[at] = indices[at - 1];
    }
    values[at] = costs.get()[s];
    indices[at] = j;
  }
}

}  // namespace deepclust::cpu
