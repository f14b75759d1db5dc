// The launches of knn's tensor-core filter.
#pragma once

#include <cstring>
#include <utility>

#include "knn_filter_select_kernel.cuh"
#include "workspace.h"

namespace deepclust::cuda {

// What a search by the filter needs beside the rows: one item's codes, one strip's entries.
struct FilterSpace {
  Workspace memory;
  float* mean;
  BFloat16 *column_codes, *row_codes;
  CodeSize *column_sizes, *row_sizes;
  ColumnTerms* terms;
  RowLimit* limits;
  FilterEntry* entries;
  FilterEntry* kept[2];
  unsigned *counts, *kept_counts, *crowded;
  uint32_t* again;
  unsigned long long* again_count;
  float *again_rows, *again_values;
  int64_t* again_indices;

  FilterSpace(const KnnFilterPlan& plan, void* base) : memory(base) {
    mean = memory.take<float>(plan.depth);
    column_codes = memory.take<BFloat16>(plan.padded_points() * plan.code_depth);
    column_sizes = memory.take<CodeSize>(plan.padded_points());
    terms = memory.take<ColumnTerms>(plan.padded_points());
    row_codes = plan.graph ? column_codes : memory.take<BFloat16>(plan.padded_queries() * plan.code_depth);
    row_sizes = plan.graph ? column_sizes : memory.take<CodeSize>(plan.padded_queries());
    limits = memory.take<RowLimit>(plan.strip_rows);
    entries = memory.take<FilterEntry>(plan.strip_rows * plan.splits * plan.slots);
    for (FilterEntry*& list : kept) list = memory.take<FilterEntry>(plan.strip_rows * plan.kept);
    counts = memory.take<unsigned>(plan.strip_rows * plan.splits);
    kept_counts = memory.take<unsigned>(plan.strip_rows);
    crowded = memory.take<unsigned>(plan.strip_rows);
    again = memory.take<uint32_t>(plan.queries);
    again_count = memory.take<unsigned long long>(1);
    again_rows = memory.take<float>(plan.exact_rows * plan.depth);
    const int64_t found = plan.exact_rows * std::min(plan.points, plan.k + plan.graph);
    again_values = memory.take<float>(found);
    again_indices = memory.take<int64_t>(found);
  }
  Neighbours<float> again_out(bool squared) const { return {again_values, again_indices, squared}; }
};

// A number that the host must wait for.
inline unsigned long long read_back(const unsigned long long* number, Stream stream) {
  unsigned long long value = ~0ull;
#if defined(__CUDACC__)
  // A failure stays for check_launch to report.
  if (cudaMemcpyAsync(&value, number, sizeof(value), cudaMemcpyDeviceToHost, stream) == cudaSuccess)
    cudaStreamSynchronize(stream);
#else
  static_cast<void>(stream);
  std::memcpy(&value, number, sizeof(value));
#endif
  return value;
}

DC_GLOBAL void clear_count(unsigned long long* count) {
  if (threadIdx.x == 0) *count = 0;
}

// One item's rows as codes.
template <RowValue kValue>
void make_codes(const KnnFilterPlan& plan, const float* rows, const float* candidates, const FilterSpace& space,
                Stream stream) {
  constexpr bool kSquared = kValue == RowValue::kSquaredDistance;
  const FilterSlack slack{plan.slack(), plan.smallest(), plan.depth};
  const float* const mean = kSquared ? space.mean : nullptr;
  auto* const average = &mean_of_rows<float>;
  const MeanOfRows<float> all{candidates, space.mean, plan.points, plan.depth};
  if (kSquared) DC_LAUNCH(average, static_cast<unsigned>(ceil_div(plan.depth, kWarp)), kThreads, 0, stream)(all);
  auto* const kernel = &code_rows<kValue, float>;
  const auto code = [&](const CodeRows<float>& task) {
    DC_LAUNCH(kernel, static_cast<unsigned>(ceil_div(task.padded, kWarps)), kThreads, 0, stream)(task);
  };
  code({candidates, mean, space.column_codes, space.column_sizes, space.terms, plan.points, plan.padded_points(),
        plan.depth, plan.code_depth, plan.stride, slack});
  if (!plan.graph)
    code({rows, mean, space.row_codes, space.row_sizes, nullptr, plan.queries, plan.padded_queries(), plan.depth,
          plan.code_depth, 1, slack});
}

// Stage after stage for some rows of an item, and the results of those that had room.
template <RowValue kValue>
void search_filtered_strip(const FilterResult& result, const FilterSpace& space, Stream stream) {
  FilterRows rows = result.rows;
  const KnnFilterPlan& plan = rows.plan;
  const int64_t count = std::min(plan.strip_rows, plan.queries - rows.row0);
  const int64_t row_tiles = ceil_div(count, KnnFilterPlan::kTile);
  DC_LAUNCH(begin_filter, static_cast<unsigned>(ceil_div(plan.strip_rows, kThreads)), kThreads, 0, stream)(rows);
  auto* const filter = &filter_candidates<kValue>;
  auto* const tighten = &tighten_limits<kValue>;
  int64_t begin = 0;
  for (int64_t stage = 0; stage < plan.stages; ++stage) {
    const int64_t end = plan.through(stage);
    if (end <= begin) continue;
    const int64_t split_tiles = ceil_div(ceil_div(end - begin, KnnFilterPlan::kTile), plan.splits);
    const FilterStage task{plan,
                           space.row_codes + rows.row0 * plan.code_depth,
                           space.column_codes,
                           space.terms,
                           space.limits,
                           space.entries,
                           space.counts,
                           rows.row0,
                           row_tiles,
                           begin,
                           end,
                           split_tiles};
    DC_LAUNCH(filter, static_cast<unsigned>(row_tiles * plan.splits), kFilterThreads, 0, stream)(task);
    DC_LAUNCH(tighten, static_cast<unsigned>(count), kThreads, 0, stream)(rows);
    std::swap(rows.kept[0], rows.kept[1]);
    begin = end;
  }
  FilterResult last = result;
  last.rows = rows;
  auto* const finish = &finish_filter<kValue>;
  const auto memory = static_cast<std::size_t>(plan.kept) * 2 * sizeof(uint32_t);
  DC_LAUNCH(finish, static_cast<unsigned>(count), kThreads, memory, stream)(last);
}

// Rows for which there was not room, by `search(rows, candidates)`.
template <typename Search>
void search_again(const KnnInput<float>& input, int64_t item, const FilterSpace& space, const Neighbours<float>& out,
                  Stream stream, const Search& search) {
  const KnnFilterPlan& plan = input.plan.filter;
  const auto total = static_cast<int64_t>(read_back(space.again_count, stream));
  if (total > plan.queries) return;  // a launch has failed
  const float* const candidates = input.candidates + item * plan.points * plan.depth;
  const int64_t found = std::min(plan.points, plan.k + plan.graph);
  for (int64_t first = 0; first < total; first += plan.exact_rows) {
    const RowsAgain task{space.again,     first,      std::min(plan.exact_rows, total - first),
                         plan.exact_rows, plan.depth, input.rows + item * plan.queries * plan.depth,
                         space.again_rows};
    const auto blocks = static_cast<unsigned>(ceil_div(plan.exact_rows, kWarps));
    DC_LAUNCH(gather_rows, blocks, kThreads, 0, stream)(task);
    search(space.again_rows, candidates);
    const int64_t at = item * plan.queries * plan.k;
    DC_LAUNCH(scatter_rows, blocks, kThreads, 0, stream)
    (task, space.again_values, space.again_indices, found, plan.k, plan.graph, out.values + at, out.indices + at);
  }
}

template <RowValue kValue, typename Search>
void search_filtered_items(const KnnInput<float>& input, const FilterSpace& space, const Neighbours<float>& out,
                           Stream stream, const Search& search) {
  const KnnFilterPlan& plan = input.plan.filter;
  for (int64_t item = 0; item < input.plan.batch; ++item) {
    const float* const rows = input.rows + item * plan.queries * plan.depth;
    const float* const candidates = input.candidates + item * plan.points * plan.depth;
    make_codes<kValue>(plan, rows, candidates, space, stream);
    DC_LAUNCH(clear_count, 1, kWarp, 0, stream)(space.again_count);
    for (int64_t row0 = 0; row0 < plan.queries; row0 += plan.strip_rows) {
      const FilterRows strip{plan,
                             {plan.slack(), plan.smallest(), plan.depth},
                             space.row_sizes + row0,
                             space.column_sizes,
                             space.entries,
                             space.counts,
                             space.limits,
                             {space.kept[0], space.kept[1]},
                             space.kept_counts,
                             space.crowded,
                             row0};
      search_filtered_strip<kValue>({strip, rows, candidates, out, item * plan.queries, space.again,
                                     reinterpret_cast<unsigned*>(space.again_count)},
                                    space, stream);
    }
    search_again(input, item, space, out, stream, search);
  }
}

// `search(rows, candidates)`: the plain search of filter.exact_rows rows, into space.again_out().
template <typename Search>
void search_filtered(const KnnInput<float>& input, const FilterSpace& space, const Neighbours<float>& out,
                     Stream stream, const Search& search) {
  if (input.plan.squared())
    search_filtered_items<RowValue::kSquaredDistance>(input, space, out, stream, search);
  else
    search_filtered_items<RowValue::kProduct>(input, space, out, stream, search);
}

}  // namespace deepclust::cuda
