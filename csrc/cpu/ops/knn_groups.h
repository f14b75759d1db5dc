// A graph of rows that gather in groups, by a search of each group: knn/groups.h has the method.
#pragma once

#include "../../torch/parallel.h"
#include "../knn/groups.h"

namespace deepclust::cpu {

// The rows at `chosen`, one after another.
inline void gather_rows(const PackedPoints<float>& points, const std::vector<int32_t>& chosen, float* out) {
  for (size_t i = 0; i < chosen.size(); ++i)
    std::copy(points.row(chosen[i]), points.row(chosen[i]) + points.depth,
              out + static_cast<int64_t>(i) * points.depth);
}

// values and indices [n, k] of the graph; false where one search of all rows is better. graph(rows, count, values,
// indices) searches contiguous rows among themselves, and ask(rows, count, k, values, indices) among all.
template <typename Graph, typename Ask>
bool grouped_graph(const PackedPoints<float>& points, const float* mean, int64_t k, float* values, int64_t* indices,
                   const Graph& graph, const Ask& ask) {
  constexpr int64_t kRows = 256;  // of a task
  const int64_t n = points.count, d = points.depth, tasks = ceil_div(n, kRows);
  GroupFinder finder(points, mean);
  std::optional<Groups> groups = finder.centres();
  if (!groups.has_value()) return false;
  std::vector<int32_t> nearest(static_cast<size_t>(n));
  std::vector<float> squared(static_cast<size_t>(n));
  parallel_tasks(tasks, n * static_cast<int64_t>(groups->centres.size()), [&](int64_t task) {
    for (int64_t i = task * kRows; i < std::min(n, (task + 1) * kRows); ++i) {
      const auto [g, distance] = finder.nearest(*groups, points.row(i));
      nearest[static_cast<size_t>(i)] = static_cast<int32_t>(g);
      squared[static_cast<size_t>(i)] = distance;
    }
  });
  if (!divide(*groups, nearest, squared, k)) return false;

  std::vector<char> open(static_cast<size_t>(n), 0);  // rows to be asked among all
  for (const int32_t i : groups->strays) open[static_cast<size_t>(i)] = 1;
  for (int64_t g = 0; g < groups->count(); ++g) {
    const std::vector<int32_t>& members = groups->members[static_cast<size_t>(g)];
    const int64_t count = static_cast<int64_t>(members.size());
    if (count == 0) continue;
    const Buffer<float> rows(count * d), found(count * k);
    const Buffer<int64_t> places(count * k);
    gather_rows(points, members, rows.get());
    graph(rows.get(), count, found.get(), places.get());
    parallel_tasks(ceil_div(count, kRows), count * d * groups->count(), [&](int64_t task) {
      for (int64_t m = task * kRows; m < std::min(count, (task + 1) * kRows); ++m) {
        const int64_t i = members[static_cast<size_t>(m)];
        for (int64_t c = 0; c < k; ++c) {
          values[i * k + c] = found.get()[m * k + c];
          indices[i * k + c] = members[static_cast<size_t>(places.get()[m * k + c])];
        }
        if (alone(*groups, g, points.row(i), found.get()[m * k + k - 1]))
          offer_strays(*groups, points, i, k, values + i * k, indices + i * k);
        else
          open[static_cast<size_t>(i)] = 1;
      }
    });
  }

  std::vector<int32_t> asked;
  for (int64_t i = 0; i < n; ++i)
    if (open[static_cast<size_t>(i)] != 0) asked.push_back(static_cast<int32_t>(i));
  const int64_t count = static_cast<int64_t>(asked.size());
  if (count > n / 4) return false;
  if (count == 0) return true;
  // One more than k, for a row finds itself; not where k + 1 copies of it come first.
  const Buffer<float> rows(count * d), found(count * (k + 1));
  const Buffer<int64_t> places(count * (k + 1));
  gather_rows(points, asked, rows.get());
  ask(rows.get(), count, k + 1, found.get(), places.get());
  for (int64_t a = 0; a < count; ++a) {
    const int64_t i = asked[static_cast<size_t>(a)];
    for (int64_t c = 0, at = 0; c <= k && at < k; ++c) {
      if (places.get()[a * (k + 1) + c] == i) continue;
      values[i * k + at] = found.get()[a * (k + 1) + c];
      indices[i * k + at++] = places.get()[a * (k + 1) + c];
    }
  }
  return true;
}

}  // namespace deepclust::cpu
