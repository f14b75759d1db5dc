// A search of rows that gather in groups, by a search of each group: knn/groups.h has the method.
#pragma once

#include "../../torch/parallel.h"
#include "../knn/copies.h"
#include "../knn/groups.h"

namespace deepclust::cpu {

// The rows at `chosen`, one after another.
inline Rows<float> gather_rows(const PackedPoints<float>& points, const std::vector<int32_t>& chosen, float* out) {
  for (size_t i = 0; i < chosen.size(); ++i)
    std::copy(points.row(chosen[i]), points.row(chosen[i]) + points.depth,
              out + static_cast<int64_t>(i) * points.depth);
  return {out, points.depth, static_cast<int64_t>(chosen.size())};
}

// The nearest centre [n] of every row and its squared distance [n].
inline void assign_rows(const GroupFinder& finder, const Groups& groups, const PackedPoints<float>& points,
                        std::vector<int32_t>& nearest, std::vector<float>& squared) {
  constexpr int64_t kRows = 256;  // of a task
  const int64_t n = points.count;
  nearest.resize(static_cast<size_t>(n));
  squared.resize(static_cast<size_t>(n));
  parallel_tasks(ceil_div(n, kRows), n * static_cast<int64_t>(groups.centres.size()), [&](int64_t task) {
    for (int64_t i = task * kRows; i < std::min(n, (task + 1) * kRows); ++i) {
      const auto [g, distance] = finder.nearest(groups, points.row(i));
      nearest[static_cast<size_t>(i)] = static_cast<int32_t>(g);
      squared[static_cast<size_t>(i)] = distance;
    }
  });
}

// values and indices [n, k] of the graph, or [q, k] of the queries if there are some; false where one search of all
// rows is better. find(rows, asked, k, values, indices) searches rows among themselves (`asked` is null) or for
// others; no rows stand for all of them.
template <typename Find>
bool grouped_search(const PackedPoints<float>& points, const PackedPoints<float>* queries, const float* mean, int64_t k,
                    float* values, int64_t* indices, const Find& find) {
  constexpr int64_t kRows = 256;
  const bool graph = queries == nullptr;
  const PackedPoints<float>& asking = graph ? points : *queries;
  const int64_t q = asking.count, d = points.depth;
  GroupFinder finder(points, mean);
  std::optional<Groups> groups = finder.centres();
  if (!groups.has_value()) return false;
  std::vector<int32_t> nearest;
  std::vector<float> squared;
  assign_rows(finder, *groups, points, nearest, squared);
  if (!divide(*groups, nearest, squared, k)) return false;

  // Who asks which group: its members in a graph, and of the queries those that are nearest to it.
  std::vector<std::vector<int32_t>> of_queries(static_cast<size_t>(graph ? 0 : groups->count()));
  std::vector<char> open(static_cast<size_t>(q), 0);  // rows to be asked among all
  if (graph) {
    for (const int32_t i : groups->strays) open[static_cast<size_t>(i)] = 1;
  } else {
    assign_rows(finder, *groups, *queries, nearest, squared);
    for (int64_t i = 0; i < q; ++i) {
      const size_t g = static_cast<size_t>(nearest[static_cast<size_t>(i)]);
      if (groups->members[g].empty())
        open[static_cast<size_t>(i)] = 1;
      else
        of_queries[g].push_back(static_cast<int32_t>(i));
    }
  }
  for (int64_t g = 0; g < groups->count(); ++g) {
    const std::vector<int32_t>& members = groups->members[static_cast<size_t>(g)];
    const std::vector<int32_t>& asked = graph ? members : of_queries[static_cast<size_t>(g)];
    const int64_t count = static_cast<int64_t>(asked.size());
    if (count == 0) continue;
    const Buffer<float> rows(static_cast<int64_t>(members.size()) * d), asked_rows(graph ? 0 : count * d);
    const Buffer<float> found(count * k);
    const Buffer<int64_t> places(count * k);
    const Rows<float> among = gather_rows(points, members, rows.get());
    const Rows<float> by = graph ? among : gather_rows(asking, asked, asked_rows.get());
    find(among, graph ? nullptr : &by, k, found.get(), places.get());
    parallel_tasks(ceil_div(count, kRows), count * d * groups->count(), [&](int64_t task) {
      for (int64_t m = task * kRows; m < std::min(count, (task + 1) * kRows); ++m) {
        const int64_t i = asked[static_cast<size_t>(m)];
        for (int64_t c = 0; c < k; ++c) {
          values[i * k + c] = found.get()[m * k + c];
          indices[i * k + c] = members[static_cast<size_t>(places.get()[m * k + c])];
        }
        if (alone(*groups, g, asking.row(i), found.get()[m * k + k - 1]))
          offer_strays(*groups, points, asking.row(i), k, values + i * k, indices + i * k);
        else
          open[static_cast<size_t>(i)] = 1;
      }
    });
  }

  std::vector<int32_t> asked;
  for (int64_t i = 0; i < q; ++i)
    if (open[static_cast<size_t>(i)] != 0) asked.push_back(static_cast<int32_t>(i));
  const int64_t count = static_cast<int64_t>(asked.size());
  if (count > q / 4) return false;
  if (count == 0) return true;
  // In a graph one more than k, for a row finds itself; not where k + 1 copies of it come first.
  const int64_t wanted = graph ? k + 1 : k;
  const Buffer<float> rows(count * d), found(count * wanted);
  const Buffer<int64_t> places(count * wanted);
  const Rows<float> by = gather_rows(asking, asked, rows.get());
  find({nullptr, 0, 0}, &by, wanted, found.get(), places.get());
  for (int64_t a = 0; a < count; ++a) {
    const int64_t i = asked[static_cast<size_t>(a)];
    for (int64_t c = 0, at = 0; c < wanted && at < k; ++c) {
      if (graph && places.get()[a * wanted + c] == i) continue;
      values[i * k + at] = found.get()[a * wanted + c];
      indices[i * k + at++] = places.get()[a * wanted + c];
    }
  }
  return true;
}

}  // namespace deepclust::cpu
