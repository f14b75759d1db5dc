// The nearest centroid of every point, and its squared distance: label(i) = the lowest k of the smallest D(x_i, c_k).
//
// A block owns a tile of points and walks over the centroids, a tile at a time (row_tile.cuh). Each thread keeps the
// best of its own columns for its four points; the threads of a row are neighbouring lanes, and settle on the best at
// the end, by value and then by the lower centroid. Nothing of size n x clusters is stored.
//
// D is a sum of squared differences whose bits depend on the pair alone, so neither the tile nor the batch shows in a
// label. The CPU sums in another order: where two centroids are equally near up to rounding, it may choose the other.
//
// Tiles: 256 points x 16 centroids up to 48 centroids, 64 x 64 above: the usual ten clusters would leave five sixths of
// the wider one idle. Estimates for an H100: at 60,000 x 256, ten clusters read 61 MB once, 18 us, and 16 columns of
// differences take 16 us at the full float32 rate, about twice that by row_tile.cuh's estimate: arithmetic, by a
// little. A thousand clusters take 0.95 ms at the full rate, 1.9 ms by that estimate, and 61 MB of x and the centroids
// (1 MB, from the second-level cache, once a tile of points: 1 GB) disappear behind it. Both are bound by arithmetic on
// differences. Measured on an H200: 1,000,000 x 256, a thousand clusters, 25.6 ms, ten .68 ms. From 64 clusters on, and
// where there are tensor cores, this searches only what kmeans_filter_kernel.cuh leaves.
#pragma once

#include "../common/arithmetic.h"
#include "../common/seeding_rule.h"
#include "kmeans_assign.h"
#include "row_tile.cuh"

namespace deepclust::cuda {

template <typename T>
DC_DEVICE bool is_finite(T value) {
  return value - value == T(0);
}

template <typename E>
struct CentroidSearch {
  using T = accumulator_t<E>;
  AssignPlan plan;
  const E* x;
  const T* centroids;
  int32_t* fresh;
  int64_t* labels;
  T* distances;
  const int32_t* done;
  const int64_t* range;
  RowFlag* bad_row;
  const int32_t* again = nullptr;   // [batch, tiles]: 0 for tiles that are to be passed over
  unsigned fewest = 1, most = ~0u;  // centroids of a range that this launch is for

  DC_DEVICE void store(int64_t item, int64_t row, T best, int32_t label) const {
    const int64_t at = item * plan.n + row;
    if (range != nullptr) {
      distances[at] = best;
      return;
    }
    // No distance below infinity: a point that is not finite, or one too far for the type.
    if (label < 0) {
      label = 0;
      if (bad_row != nullptr) find_bad(at);
    }
    if (fresh != nullptr) fresh[at] = label;
    if (labels != nullptr) labels[at] = label;
    distances[at] = best;
  }
  DC_DEVICE void find_bad(int64_t row) const {
    bool finite = true;
    for (int64_t j = 0; j < plan.d; ++j) finite = finite && is_finite(read(x[row * plan.d + j]));
    if (!finite) atomicMin(bad_row, static_cast<RowFlag>(row));
  }
};

// One tile of one matrix's points to a block.
template <typename E, typename Tile, int kVec>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads, sizeof(accumulator_t<E>) == sizeof(double) ? 1 : 2)
    nearest_centroids(const CentroidSearch<E> search) {
  using T = accumulator_t<E>;
  DC_SHARED(T, point_slab, Tile::kRowMemory);
  DC_SHARED(T, centroid_slab, Tile::kColMemory);
  const AssignPlan& plan = search.plan;
  // In 32 bits, where they fit, for want of registers.
  const unsigned tiles = static_cast<unsigned>(ceil_div(plan.n, Tile::kRows));
  const unsigned item = blockIdx.x / tiles;
  const int64_t m0 = static_cast<int64_t>(blockIdx.x % tiles) * Tile::kRows, m = m0 + Tile::row();
  if (search.done != nullptr && search.done[item] != 0) return;
  if (search.again != nullptr && search.again[blockIdx.x] == 0) return;
  unsigned first = 0, last = static_cast<unsigned>(plan.clusters);
  if (search.range != nullptr) {
    first = static_cast<unsigned>(search.range[item * 2]);
    last = static_cast<unsigned>(search.range[item * 2 + 1]);
    if (first >= last || last - first < search.fewest || last - first > search.most) return;
  }
  const RowsOf<E> points{search.x + item * plan.n * plan.d, plan.d, plan.n};
  const RowsOf<T> centroids{search.centroids + item * plan.clusters * plan.d, plan.d, last};

  T best[4], value[4][4];
  int32_t label[4];
  DC_UNROLL
  for (int i = 0; i < 4; ++i) {
    best[i] = static_cast<T>(INFINITY);
    if (search.range != nullptr && m + i < plan.n) best[i] = search.distances[item * plan.n + m + i];
    label[i] = -1;
  }
  for (unsigned n0 = first; n0 < last; n0 += Tile::kCols) {
    row_tile<RowValue::kSquaredDistance, Tile, kVec>(points, m0, centroids, n0, plan.d, point_slab, centroid_slab,
                                                     value);
    const unsigned n = n0 + static_cast<unsigned>(Tile::col());
    DC_UNROLL
    for (int i = 0; i < 4; ++i) {
      DC_UNROLL
      for (int j = 0; j < 4; ++j) {
        if (n + static_cast<unsigned>(j) < last && value[i][j] < best[i]) {
          best[i] = value[i][j];
          label[i] = static_cast<int32_t>(n) + j;
        }
      }
    }
  }
  DC_UNROLL
  for (int i = 0; i < 4; ++i) {
    DC_UNROLL
    for (int step = Tile::kAcross / 2; step > 0; step /= 2) {
      const T other = __shfl_xor_sync(kFullMask, best[i], step);
      const int32_t other_label = __shfl_xor_sync(kFullMask, label[i], step);
      // As unsigned, so that no label at all comes last.
      const bool lower = static_cast<uint32_t>(other_label) < static_cast<uint32_t>(label[i]);
      if (other < best[i] || (other == best[i] && lower)) {
        best[i] = other;
        label[i] = other_label;
      }
    }
    if (Tile::col() == 0 && m + i < plan.n) search.store(item, m + i, best[i], label[i]);
  }
}

// The first row of data [rows, cols] that is not finite; looks only where `suspect` says so, if given.
template <typename E>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads)
    find_bad_row(const E* data, int64_t rows, int64_t cols, const int32_t* suspect, RowFlag* bad_row) {
  if (suspect != nullptr && *suspect == 0) return;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t e = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; e < rows * cols; e += step)
    if (!is_finite(read(data[e]))) atomicMin(bad_row, static_cast<RowFlag>(e / cols));
}

// A distance times its point's weight, if there are weights; a weight of 0 outweighs infinity.
template <typename T>
DC_DEVICE double weighted(T distance, const double* weights, int64_t at) {
  if (weights == nullptr) return static_cast<double>(distance);
  return weights[at] > 0.0 ? weights[at] * static_cast<double>(distance) : 0.0;
}

// The sum of a block of item's distances, in all threads; a DC_SYNC must lie between two calls.
template <typename T>
DC_DEVICE double sum_distance_block(const T* distances, const double* weights, int64_t n, int64_t item, int64_t block) {
  double sum = 0;
  for (int64_t i = block * kWeightBlock + threadIdx.x; i < n && i < (block + 1) * kWeightBlock; i += kThreads)
    sum += weighted(distances[item * n + i], weights, item * n + i);
  return block_sum(sum);
}

// sums [batch, blocks] of distances [batch, n], with weights [batch, n] or null; with a range, of the matrices that it
// is not empty for.
template <typename T>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads) sum_distances(const T* distances, const double* weights, int64_t n,
                                                        int64_t blocks, const int64_t* range, double* sums) {
  const int64_t item = blockIdx.x / blocks, block = blockIdx.x % blocks;
  if (range != nullptr && range[item * 2] >= range[item * 2 + 1]) return;
  const double sum = sum_distance_block(distances, weights, n, item, block);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// Blocks that go over `size` elements, 8 a thread: at most four on each of 128 multiprocessors.
inline unsigned blocks_over(int64_t size) {
  const int64_t wanted = (size + 8 * kThreads - 1) / (8 * kThreads);
  return static_cast<unsigned>(wanted < 1 ? 1 : wanted < 512 ? wanted : 512);
}

}  // namespace deepclust::cuda
