// The nearest centroid by a tensor-core filter: the plain search's labels and distances, from few exact ones.
//
// Codes and bounds are those of row_codes_kernel.cuh, the walk over tiles that of knn_filter_kernel.cuh, twice:
//
//   least     every point's smallest |c_x - c_k|^2, up to the sums' error: its nearest centroid is at most
//             U = sqrt(that) + rho_x + (the largest rho_k) away;
//   filter    the centroids whose lower bound is not above U are noted: nearly always one or two;
//   nearest   their exact distances, with the bits of row_tile(), and the lowest by value and centroid.
//
// A point that has more of them than places, or is not finite, marks its 64 rows; nearest_centroids() searches these,
// and passes over the others at once. Points keep their codes from iteration to iteration, centroids get new ones.
//
// Estimate for an H100 (132 multiprocessors at 1.755 GHz) at 1,000,000 x 256, 1000 clusters, from nvcc's instructions
// at sm_90: 62,500 tiles of 512 mma a warp, twice, 6.5 cycles each: 1.8 ms if all else hides behind them, 3 ms if half
// of it does. All else is, beside 128 ldmatrix a warp and tile, two instructions a pair for the least bound (256 of
// 1000 in all) and three for the candidates; exact distances read x once, 1 GB, .3 ms, 319 instructions a candidate,
// eight lanes and 256 columns: .1 ms. The plain kernel takes 25.6 ms on an H200, a product by cuBLAS in float32 and a
// minimum
// 14. Four launches and the plain kernel's, which passes over its tiles, some 20 us. Memory: half of x in float32, and
// 160 bytes a point.
#pragma once

#include "kmeans_assign_kernel.cuh"
#include "kmeans_filter.h"
#include "knn_filter_kernel.cuh"
#include "lane_value.cuh"

namespace deepclust::cuda {

struct LeastStage {
  KnnFilterPlan plan;
  FilterSlack slack;
  const BFloat16* rows;  // codes of the strip's points
  const BFloat16* columns;
  const ColumnTerms* least_terms;
  const CodeSize* sizes;  // of the strip's points
  const CodeSize* column_sizes;
  RowLimit* limits;  // [strip_rows]
  int32_t* again;    // the item's flags: those of the block's points are cleared
  int64_t row0, tiles;
  const int32_t* done;
};

DC_GLOBAL void DC_LAUNCH_BOUNDS(kFilterThreads, 2) limit_points(const LeastStage stage) {
  constexpr int kTile = KnnFilterPlan::kTile;
  constexpr RowValue kSquared = RowValue::kSquaredDistance;
  DC_SHARED(BFloat16, row_slab, WalkMemory::kSlabs);
  DC_SHARED(BFloat16, col_slab, WalkMemory::kSlabs);
  DC_SHARED(ColumnTerms, term_slab, WalkMemory::kTerms);
  DC_SHARED(float, halves, 2 * kTile);  // by the tile's left and right columns
  DC_SHARED(float, residuals, kFilterThreads / kWarp);
  if (stage.done != nullptr && *stage.done != 0) return;
  const float infinity = std::numeric_limits<float>::infinity();
  const int64_t local0 = static_cast<int64_t>(blockIdx.x) * kTile;
  const int thread = static_cast<int>(threadIdx.x);
  constexpr int kFlags = kTile / static_cast<int>(CentroidFilter::kFlagRows);
  const int64_t flag = (stage.row0 + local0) / CentroidFilter::kFlagRows + thread;
  if (thread < kFlags && flag < stage.tiles) stage.again[flag] = 0;
  float largest = 0;  // of the centroids' residuals
  for (int64_t k = thread; k < stage.plan.points; k += kFilterThreads) {
    const CodeSize size = stage.column_sizes[k];
    if (size.usable()) largest = fmaxf(largest, size.residual);
  }
  DC_UNROLL
  for (int step = kWarp / 2; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(kFullMask, largest, step));
  const TileWalk walk;
  if (walk.lane == 0) residuals[thread / kWarp] = largest;
  const int row0 = walk.first_row(), col0 = walk.first_col();
  float most[8];  // of 2 c_x c_k - |c_k|^2
  DC_UNROLL
  for (int i = 0; i < 8; ++i) most[i] = -infinity;
  const auto on_tile = [&](int, const ColumnTerms* terms, const float (&sums)[4][8][4]) {
    DC_UNROLL
    for (int j = 0; j < 8; ++j) {
      const float pair[2] = {terms[col0 + j * 8].a, terms[col0 + j * 8 + 1].a};
      DC_UNROLL
      for (int i = 0; i < 16; ++i) most[i / 2] = fmaxf(most[i / 2], fmaf(2.0f, sums[i / 4][j][i % 4], pair[i % 2]));
    }
  };
  walk.run(stage.rows + local0 * stage.plan.code_depth, stage.columns, stage.least_terms, stage.plan.points,
           stage.plan.code_depth, {row_slab, col_slab, term_slab}, on_tile);
  DC_UNROLL
  for (int i = 0; i < 8; ++i) {
    most[i] = fmaxf(most[i], __shfl_xor_sync(kFullMask, most[i], 1));
    most[i] = fmaxf(most[i], __shfl_xor_sync(kFullMask, most[i], 2));
    if (walk.lane % 4 == 0) halves[walk.warp_col / 64 * kTile + row0 + i * 8] = most[i];
  }
  DC_SYNC();
  DC_UNROLL
  for (int warp = 0; warp < kFilterThreads / kWarp; ++warp) largest = fmaxf(largest, residuals[warp]);
  const int64_t local = local0 + thread;
  RowLimit limit{0, 0, infinity, 0};
  if (stage.row0 + local < stage.plan.queries) {
    const CodeSize size = stage.sizes[local];
    const float least = size.size * (1.0f + stage.slack.slack) - fmaxf(halves[thread], halves[kTile + thread]);
    const float near = sqrtf(fmaxf(least, 0.0f) + stage.slack.smallest) * (1.0f + 0x1p-20f);
    const float reach = stage.slack.reach<kSquared>(near + (size.residual + largest) * (1.0f + 0x1p-20f));
    limit = stage.slack.limit<kSquared>(size, is_finite(least) ? reach : infinity);
  }
  stage.limits[local] = limit;
}

template <typename E>
struct NearestStage {
  CentroidSearch<E> search;
  int64_t item, row0, rows;  // of the matrix: the strip's points
  const FilterEntry* entries;
  const unsigned* counts;
  int32_t* again;  // the item's: not 0 where 64 points are to be searched without the filter

  DC_DEVICE unsigned slots() const { return static_cast<unsigned>(CentroidFilter::kSlots); }
};

// Eight lanes a point.
template <typename E>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads) nearest_of_few(const NearestStage<E> stage) {
  const CentroidSearch<E>& search = stage.search;
  if (search.done != nullptr && search.done[stage.item] != 0) return;
  const AssignPlan& plan = search.plan;
  const int64_t local = static_cast<int64_t>(blockIdx.x) * (kThreads / kValueLanes) + threadIdx.x / kValueLanes;
  const bool exists = local < stage.rows;
  const int64_t row = stage.row0 + (exists ? local : 0);
  unsigned count = exists ? stage.counts[local] : 0;
  const bool crowded = exists && (count == 0 || count > stage.slots());
  if (crowded) count = 0;
  const E* const x = search.x + (stage.item * plan.n + row) * plan.d;
  float best = INFINITY;
  int32_t label = -1;
  for (unsigned e = 0; __any_sync(kFullMask, e < count); ++e) {
    const unsigned k = e < count ? stage.entries[local * stage.slots() + e].position : 0;
    const float* const centroid = search.centroids + (stage.item * plan.clusters + k) * plan.d;
    const float value = value_by_lanes<RowValue::kSquaredDistance>(x, centroid, plan.d);
    const bool lower = value < best || (value == best && k < static_cast<unsigned>(label));
    if (e < count && value < INFINITY && lower) {
      best = value;
      label = static_cast<int32_t>(k);
    }
  }
  if (threadIdx.x % kValueLanes != 0 || !exists) return;
  if (crowded || label < 0)
    stage.again[row / CentroidFilter::kFlagRows] = 1;
  else
    search.store(stage.item, row, best, label);
}

}  // namespace deepclust::cuda
