// How a search by the tensor-core filter (knn_filter_kernel.cuh) is cut.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <numeric>

#include "../common/arithmetic.h"

namespace deepclust::cuda {

struct KnnFilterPlan {
  static constexpr int kTile = 128;  // rows and candidates of a block's tile
  static constexpr int kSlab = 32;   // of the depth, at once in shared memory
  static constexpr int64_t kMostK = 1024;
  static constexpr int64_t kFirstSplits = 8;  // of the first stage
  static constexpr int64_t kBlocksWanted = 1056;
  static constexpr int64_t kEntrySize = 8, kEntryBytes = int64_t{1} << 27;

  int64_t points, queries, depth, k;
  bool graph;
  int64_t code_depth;  // whole slabs
  int64_t slots;       // entries that a row may find in one split of one stage
  int64_t splits;      // blocks that share a row tile's candidates
  int64_t first;       // candidates of the first stage, which all enter
  int64_t kept;        // entries of a row that may be left after a stage
  int64_t stages;
  int64_t strip_rows;  // rows that are searched together
  uint64_t stride;     // candidate p stands at row p * stride % points
  int64_t exact_rows;  // rows at a time that are searched again without the filter

  // tile, entry_bytes: for tests, which need small ones.
  KnnFilterPlan(int64_t points, int64_t queries, int64_t depth, int64_t k, bool graph, int64_t first_tiles = 0,
                int64_t entry_bytes = kEntryBytes)
      : points(points), queries(queries), depth(depth), k(k), graph(graph) {
    const auto power = [](int64_t size) { return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(size))); };
    code_depth = round_up(depth, kSlab);
    slots = std::max<int64_t>(kTile, power(k));
    const int64_t row_tiles = std::clamp<int64_t>(ceil_div(queries, kTile), 1, 128);
    first = std::min(points, first_tiles > 0 ? first_tiles * kTile : kFirstSplits * slots);
    const int64_t fit = entry_bytes / (kTile * slots * kEntrySize);
    const int64_t least = std::max<int64_t>(1, ceil_div(first, slots));  // all of the first stage has a place
    splits = std::max(least, std::min({ceil_div(kBlocksWanted, row_tiles), int64_t{512}, fit}));
    kept = std::max<int64_t>(256, power(4 * k));
    // A stage multiplies the candidates by `growth`, and (growth - 1) k of the new ones come before the k-th of the old
    // ones where their order says nothing of their place. Bounds and chance add to that: a sixth of the places.
    const double growth = std::clamp(1.0 + static_cast<double>(splits * slots) / static_cast<double>(6 * k), 2.0, 8.0);
    const double ratio = first > 0 ? static_cast<double>(points) / static_cast<double>(first) : 1.0;
    stages = 1 + static_cast<int64_t>(std::ceil(std::log(ratio) / std::log(growth)));
    const int64_t rows = entry_bytes / (splits * slots * kEntrySize) / kTile * kTile;
    strip_rows = std::max<int64_t>(kTile, std::min(rows, round_up(queries, kTile)));
    stride = std::max<uint64_t>(1, static_cast<uint64_t>(static_cast<double>(points) * 0.6180339887498949));
    while (points > 0 && std::gcd(stride, static_cast<uint64_t>(points)) != 1) ++stride;
    exact_rows = std::min<int64_t>(queries, 4096);
  }
  // Where the filter may serve: enough candidates for stages, and a list of k that sorts in shared memory.
  bool serves() const { return k <= kMostK && depth >= 16 && points >= 4 * first && points < int64_t{1} << 31; }
  // The candidates that have been looked at after a stage.
  int64_t through(int64_t stage) const {
    if (stage + 1 >= stages) return points;
    const double share = static_cast<double>(stage) / static_cast<double>(stages - 1);
    const double grown = static_cast<double>(first) * std::pow(static_cast<double>(points) / first, share);
    return std::min(points, round_up(static_cast<int64_t>(grown), kTile));
  }
  int64_t padded_points() const { return round_up(points, kTile); }
  int64_t padded_queries() const { return round_up(queries, kTile); }
  float slack() const { return static_cast<float>(2 * depth + 64) * 0x1p-22f; }
  float smallest() const { return static_cast<float>(depth) * 0x1p-120f; }
};

}  // namespace deepclust::cuda
