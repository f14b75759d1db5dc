// knn on the GPU, as its torch side sees it: how the work is cut, and the launches.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "../common/dtype.h"
#include "joint_plan.h"
#include "knn_filter.h"

namespace deepclust::cuda {

enum class Metric { kEuclidean, kCosine, kInner };

struct KnnPlan {
  static constexpr int64_t kTile = 64;               // rows and candidates of a block's tile
  static constexpr int64_t kBlocksWanted = 528;      // two rounds of two on each of 132 multiprocessors
  static constexpr int64_t kLeastChunk = 8 * kTile;  // candidates of a chunk: its list must be worth merging
  static constexpr int64_t kStripBytes = int64_t{1} << 28;
  static constexpr int64_t kRun = 1024;          // neighbours that a block sorts at once
  static constexpr int64_t kSelectBlocks = 264;  // rows that are selected from together, two a multiprocessor
  static constexpr int64_t kLeastPart = 2048;    // candidates of one block of a selection

  int64_t batch, points, queries, depth, k;  // x [batch, points, depth], query [batch, queries, depth]
  bool graph;                                // the queries are x itself, and no point is its own neighbour
  Metric metric;
  DType dtype;
  bool listed;  // the k best are kept in lists while the tiles go by; else a strip of costs is selected from
  int64_t chunk_size, chunks;  // candidates that one list takes, and how many of them there are
  int64_t tile_rows;           // rows that a tile uses: fewer than it has where one row of a strip is very long
  int64_t row_tiles;           // of a batch item
  int64_t strip_tiles;         // row tiles whose costs are in memory together
  int64_t part_size, parts;    // of a strip's row: candidates that one block selects from, and how many such blocks
  KnnFilterPlan filter;
  bool filtered;  // tensor cores look first at which candidates may be neighbours

  // strip_bytes, filter: for tests, which need small ones.
  KnnPlan(int64_t batch, int64_t points, int64_t queries, int64_t depth, int64_t k, bool graph, Metric metric,
          DType dtype, bool tensor_cores, int64_t strip_bytes = kStripBytes)
      : KnnPlan(batch, points, queries, depth, k, graph, metric, dtype, strip_bytes,
                KnnFilterPlan(points, queries, depth, k, graph)) {
    filtered = tensor_cores && dtype != DType::kDouble && filter.serves();
  }
  KnnPlan(int64_t batch, int64_t points, int64_t queries, int64_t depth, int64_t k, bool graph, Metric metric,
          DType dtype, int64_t strip_bytes, const KnnFilterPlan& filter)
      : batch(batch),
        points(points),
        queries(queries),
        depth(depth),
        k(k),
        graph(graph),
        metric(metric),
        dtype(dtype),
        filter(filter),
        filtered(true) {
    const bool is_double = dtype == DType::kDouble;
    listed = k <= (is_double ? 32 : 64);  // 64 lists and the tile's slabs in 48 KiB of shared memory
    const int64_t key_bytes = is_double ? 8 : 4, row_bytes = points * key_bytes + 2 * k * (key_bytes + 4);
    tile_rows = listed ? kTile : std::clamp<int64_t>(strip_bytes / row_bytes, 1, kTile);
    row_tiles = ceil_div(queries, tile_rows);
    strip_tiles = std::clamp<int64_t>(strip_bytes / (tile_rows * row_bytes), 1, std::max<int64_t>(1, tiles()));
    // Few rows fit where candidates are many: several blocks then share a row.
    const int64_t asked = ceil_div(kSelectBlocks, strip_tiles * tile_rows);
    parts = std::clamp<int64_t>(points / std::max(kLeastPart, 8 * k), 1, asked);
    part_size = ceil_div(points, parts);
    const int64_t wanted = listed ? std::max<int64_t>(1, kBlocksWanted / std::max<int64_t>(1, tiles())) : 1;
    chunk_size = std::max(kLeastChunk, ceil_div(ceil_div(points, wanted), kTile) * kTile);
    chunks = ceil_div(points, chunk_size);
  }
  int64_t tiles() const { return batch * row_tiles; }
  int64_t strip_rows() const { return strip_tiles * tile_rows; }
  int64_t runs() const { return ceil_div(k, kRun); }
  bool squared() const { return metric == Metric::kEuclidean; }
  // Whether rows are searched in a copy: half types as float32, and for the cosine rows of length 1.
  bool copied() const { return metric == Metric::kCosine || dtype == DType::kHalf || dtype == DType::kBFloat16; }
  bool fits_a_grid() const {
    const int64_t rows = batch * std::max(points, queries), blocks = std::max(tiles() * chunks, ceil_div(rows, 8));
    return blocks < int64_t{1} << 31;
  }
  // The search of the rows that the filter leaves: of one row more where a row finds itself.
  KnnPlan without_filter() const {
    const Metric same = metric == Metric::kCosine ? Metric::kInner : metric;  // its rows have length 1
    return KnnPlan(1, points, filter.exact_rows, depth, std::min(points, k + graph), false, same, DType::kFloat, false);
  }
  std::size_t workspace_bytes() const;
};

// Whether the current device has tensor cores for bfloat16.
bool has_tensor_cores();

// The first argument, batch item and row, in this order of items, "query" before "x", that holds NaN or infinity.
struct KnnBadRow {
  const char* arg = nullptr;  // null where all is finite
  int64_t row = -1;
};

// Prepares x and query (null for a graph), both dense, and waits for what it finds.
KnnBadRow knn_prepare(const KnnPlan& plan, const void* x, const void* query, void* workspace, void* stream);

// After knn_prepare, with the same workspace: values and indices [batch, queries, k].
void knn_search(const KnnPlan& plan, const void* x, const void* query, void* workspace, void* values, int64_t* indices,
                void* stream);

}  // namespace deepclust::cuda
