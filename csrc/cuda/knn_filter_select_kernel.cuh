// What becomes of the pairs that knn's filter notes.
//
// After every stage, a block a row: the k-th smallest upper bound among the pairs noted so far, by radix selection
// (knn_select_kernel.cuh). No neighbour's lower bound lies above it, so the pairs above are dropped, and the next stage
// notes none of their kind. At the end the exact values of what is left, with the bits that row_tile.cuh would give,
// and the k best of these in order. Rows for which there was not room enough are listed, and searched again by the
// plain kernels: which rows these are depends on the data alone, and shows in no result.
#pragma once

#include "knn_filter_kernel.cuh"
#include "knn_select_kernel.cuh"
#include "lane_value.cuh"

namespace deepclust::cuda {

// The strip's rows between stages.
struct FilterRows {
  KnnFilterPlan plan;
  FilterSlack slack;
  const CodeSize* row_sizes;     // of the strip's rows
  const CodeSize* column_sizes;  // of all candidates
  const FilterEntry* entries;
  const unsigned* counts;
  RowLimit* limits;       // [strip_rows]
  FilterEntry* kept[2];   // [strip_rows, plan.kept]: before the stage and after it
  unsigned* kept_counts;  // [strip_rows]
  unsigned* crowded;      // [strip_rows]: there was not room enough
  int64_t row0;
};

DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads) begin_filter(const FilterRows rows) {
  const int64_t local = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (local >= rows.plan.strip_rows) return;
  const float infinity = std::numeric_limits<float>::infinity();
  rows.limits[local] = {0, 0, rows.row0 + local < rows.plan.queries ? -infinity : infinity, 0};
  rows.kept_counts[local] = rows.crowded[local] = 0;
}

// Drops what the bounds rule out, and says what the next stage may rule out.
template <RowValue kValue>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads, 4) tighten_limits(const FilterRows rows) {
  DC_SHARED(unsigned, bins, kBins);
  DC_SHARED(unsigned, warp_sums, kWarps);
  DC_SHARED(unsigned, choice, 3);
  DC_SHARED(unsigned, best, 1);
  DC_SHARED(unsigned, taken, 1);
  const KnnFilterPlan& plan = rows.plan;
  const int64_t local = blockIdx.x;
  const int thread = static_cast<int>(threadIdx.x);
  if (rows.row0 + local >= plan.queries || rows.crowded[local] != 0) return;
  const unsigned* const counts = rows.counts + local * plan.splits;
  const FilterEntry* const entries = rows.entries + local * plan.splits * plan.slots;
  const FilterEntry* const before = rows.kept[0] + local * plan.kept;
  FilterEntry* const after = rows.kept[1] + local * plan.kept;
  const int old = static_cast<int>(rows.kept_counts[local]), places = static_cast<int>(plan.splits * plan.slots);
  const CodeSize size = rows.row_sizes[local];
  bool crowded = false;
  for (int64_t split = thread; split < plan.splits; split += kThreads) crowded = crowded || counts[split] > plan.slots;
  if (thread == 0) best[0] = taken[0] = 0;
  crowded = __syncthreads_or(crowded) != 0;

  const auto all = [&](const auto& take) {
    for (int e = thread; e < places; e += kThreads)
      if (e % static_cast<int>(plan.slots) < static_cast<int>(counts[e / static_cast<int>(plan.slots)]))
        take(entries[e]);
    for (int e = thread; e < old; e += kThreads) take(before[e]);
  };
  const auto bounds = [&](const FilterEntry& entry, float& low, float& high) {
    rows.slack.bounds<kValue>(size, rows.column_sizes[entry.position], entry.twice, low, high);
  };
  if (!crowded) {
    unsigned wanted = static_cast<unsigned>(plan.k), limit = 0;
    const auto uppers = [&](const auto& take) {
      all([&](const FilterEntry& entry) {
        float low, high;
        bounds(entry, low, high);
        take(key_of(high));
      });
    };
    select_word<uint32_t>({bins, warp_sums, choice}, uppers, wanted, limit);
    // `limit` may lie above the k-th, short of the next.
    uppers([&](uint32_t key) {
      if (key <= limit) atomicMax(best, key);
    });
    DC_SYNC();
    const float reach = rows.slack.reach<kValue>(cost_of<float>(best[0]));
    all([&](const FilterEntry& entry) {
      float low, high;
      bounds(entry, low, high);
      if (low > reach) return;
      const unsigned place = atomicAdd(taken, 1u);
      if (place < plan.kept) after[place] = entry;
    });
    DC_SYNC();
    crowded = taken[0] > plan.kept;
    if (thread == 0) {
      rows.kept_counts[local] = taken[0];
      rows.limits[local] = rows.slack.limit<kValue>(size, reach);
    }
  }
  if (crowded && thread == 0) {
    rows.crowded[local] = 1;
    rows.limits[local] = {0, 0, std::numeric_limits<float>::infinity(), 0};
  }
}

// Exact values of what is left.
struct FilterResult {
  FilterRows rows;
  const float* queries;  // the rows themselves: all, not the strip's
  const float* candidates;
  Neighbours<float> out;
  int64_t first_list;  // the item's first row in `out`
  uint32_t* again;     // rows to be searched without the filter
  unsigned* again_count;
};

template <RowValue kValue>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads) finish_filter(const FilterResult result) {
  DC_DYNAMIC_SHARED(uint32_t, memory);  // [kept] keys and as many indices
  const FilterRows& rows = result.rows;
  const KnnFilterPlan& plan = rows.plan;
  const int64_t local = blockIdx.x, position = rows.row0 + local;
  const int thread = static_cast<int>(threadIdx.x);
  if (position >= plan.queries) return;
  const int64_t row = plan.graph ? strided_row(position, plan.stride, plan.points) : position;
  if (rows.crowded[local] != 0) {
    if (thread == 0) result.again[atomicAdd(result.again_count, 1u)] = static_cast<uint32_t>(row);
    return;
  }
  const int count = static_cast<int>(rows.kept_counts[local]);
  const FilterEntry* const kept = rows.kept[0] + local * plan.kept;
  int size = 1;
  while (size < count) size *= 2;
  const RankedList<uint32_t> run{memory, memory + plan.kept};
  for (int first = 0; first < size; first += kThreads / kValueLanes) {
    const int e = first + thread / kValueLanes;
    const int64_t index = e < count ? strided_row(kept[e].position, plan.stride, plan.points) : 0;
    const float value =
        value_by_lanes<kValue>(result.queries + row * plan.depth, result.candidates + index * plan.depth, plan.depth);
    if (thread % kValueLanes == 0 && e < size)
      run.set(e, e < count ? Ranked<uint32_t>{key_of_value<kValue>(value), static_cast<uint32_t>(index)}
                           : Ranked<uint32_t>::none());
  }
  sort_run(run, size);
  for (int e = thread; e < plan.k; e += kThreads) result.out.set((result.first_list + row) * plan.k + e, run.at(e));
}

// Rows that are searched again, gathered; the last list is filled up with copies of the first row.
struct RowsAgain {
  const uint32_t* again;
  int64_t first, count, size, depth;  // of the list: from `first` on; `size` rows are wanted
  const float* rows;
  float* gathered;

  DC_DEVICE int64_t row(int64_t i) const { return again[first + (i < count ? i : 0)]; }
};

DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads) gather_rows(const RowsAgain task) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (i >= task.size) return;
  const float* const row = task.rows + task.row(i) * task.depth;
  for (int64_t d = threadIdx.x % kWarp; d < task.depth; d += kWarp) task.gathered[i * task.depth + d] = row[d];
}

// Their results, each to its place, without the row itself: of k + 1 for a graph, and where it is not among these, the
// first k. A warp a row.
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads)
    scatter_rows(const RowsAgain task, const float* values, const int64_t* indices, int64_t found, int64_t k,
                 bool graph, float* out_values, int64_t* out_indices) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (i >= task.count) return;
  const int64_t row = task.row(i);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  int64_t self = found;  // its place
  for (int64_t first = 0; graph && first < found; first += kWarp) {
    const bool here = first + lane < found && indices[i * found + first + lane] == row;
    const unsigned lanes = __ballot_sync(kFullMask, here);
    if (lanes != 0) self = first + __ffs(static_cast<int>(lanes)) - 1;
  }
  for (int64_t e = lane; e < k; e += kWarp) {
    const int64_t from = i * found + (e < self ? e : e + 1);
    out_values[row * k + e] = values[from];
    out_indices[row * k + e] = indices[from];
  }
}

}  // namespace deepclust::cuda
