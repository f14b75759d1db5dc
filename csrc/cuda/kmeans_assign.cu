#include "kmeans_filter_kernel.cuh"

namespace deepclust::cuda {
namespace {

// Up to here the narrow tile computes fewer columns that nobody asked for.
constexpr int64_t kNarrow = 48;

template <typename Tile, int kVec, typename E>
void launch_search(const CentroidSearch<E>& search, Stream stream) {
  auto* const kernel = &nearest_centroids<E, Tile, kVec>;
  const int64_t blocks = search.plan.batch * ceil_div(search.plan.n, Tile::kRows);
  DC_LAUNCH(kernel, static_cast<unsigned>(blocks), kThreads, 0, stream)(search);
}

template <int kVec, typename E>
void launch_search(const CentroidSearch<E>& search, Stream stream) {
  const bool narrow = search.plan.clusters <= kNarrow;
  // Rows to be searched again are marked by the wider tile.
  if (narrow && search.again == nullptr) return launch_search<RowTile<256, 16>, kVec>(search, stream);
  if (search.range == nullptr) return launch_search<RowTile<64, 64>, kVec>(search, stream);
  // How many centroids there are is known on the device alone: the launch for the other tile returns at once.
  CentroidSearch<E> part = search;
  part.most = kNarrow;
  launch_search<RowTile<256, 16>, kVec>(part, stream);
  // A range is never longer than all seeds before it, and the last seeds need no pass.
  if ((search.plan.clusters - 1) / 2 <= kNarrow) return;
  part = search;
  part.fewest = kNarrow + 1;
  launch_search<RowTile<64, 64>, kVec>(part, stream);
}

// Searches by the filter, and leaves `again` to the plain search.
template <typename E>
void search_filtered(const CentroidSearch<E>& search, const CentroidFilter& filter, Stream stream) {
  const KnnFilterPlan& plan = filter.plan;
  const FilterSlack slack{plan.slack(), plan.smallest(), plan.depth};
  auto* const code = &code_rows<RowValue::kSquaredDistance, float>;
  auto* const note = &filter_candidates<RowValue::kSquaredDistance>;
  auto* const nearest = &nearest_of_few<E>;
  for (int64_t item = 0; item < filter.batch; ++item) {
    const int32_t* const done = search.done == nullptr ? nullptr : search.done + item;
    const CodeRows<float> centroids{search.centroids + item * plan.points * plan.depth,
                                    filter.mean + item * plan.depth,
                                    filter.centroid_codes,
                                    filter.centroid_sizes,
                                    filter.terms,
                                    plan.points,
                                    plan.padded_points(),
                                    plan.depth,
                                    plan.code_depth,
                                    1,
                                    slack,
                                    filter.least_terms};
    DC_LAUNCH(code, static_cast<unsigned>(ceil_div(plan.padded_points(), kWarps)), kThreads, 0, stream)(centroids);
    int32_t* const again = filter.again + item * filter.tiles();
    for (int64_t row0 = 0; row0 < plan.queries; row0 += filter.strip_rows) {
      const int64_t rows = std::min(filter.strip_rows, plan.queries - row0), at = item * filter.padded() + row0;
      const int64_t row_tiles = ceil_div(rows, KnnFilterPlan::kTile);
      const BFloat16* const codes = filter.point_codes + at * plan.code_depth;
      const auto blocks = static_cast<unsigned>(row_tiles);
      DC_LAUNCH(limit_points, blocks, kFilterThreads, 0, stream)
      (LeastStage{plan, slack, codes, filter.centroid_codes, filter.least_terms, filter.point_sizes + at,
                  filter.centroid_sizes, filter.limits, again, row0, filter.tiles(), done});
      DC_LAUNCH(note, blocks, kFilterThreads, 0, stream)
      (FilterStage{plan, codes, filter.centroid_codes, filter.terms, filter.limits, filter.entries, filter.counts, row0,
                   row_tiles, 0, plan.points, ceil_div(plan.points, KnnFilterPlan::kTile), done});
      DC_LAUNCH(nearest, static_cast<unsigned>(ceil_div(rows, kThreads / kValueLanes)), kThreads, 0, stream)
      (NearestStage<E>{search, item, row0, rows, filter.entries, filter.counts, again});
    }
  }
}

}  // namespace

CentroidFilter::CentroidFilter(const AssignPlan& sizes, void* base, int64_t strip)
    : plan(sizes.clusters, sizes.n, sizes.d, 1, false), batch(sizes.batch), memory(base) {
  plan.splits = 1;
  plan.slots = kSlots;
  strip_rows = std::min(strip, padded());
  const int64_t columns = plan.padded_points();
  mean = memory.take<float>(batch * plan.depth);
  point_codes = memory.take<BFloat16>(batch * padded() * plan.code_depth);
  point_sizes = memory.take<CodeSize>(batch * padded());
  centroid_codes = memory.take<BFloat16>(columns * plan.code_depth);
  centroid_sizes = memory.take<CodeSize>(columns);
  terms = memory.take<ColumnTerms>(columns);
  least_terms = memory.take<ColumnTerms>(columns);
  limits = memory.take<RowLimit>(strip_rows);
  entries = memory.take<FilterEntry>(strip_rows * plan.slots);
  counts = memory.take<unsigned>(strip_rows);
  again = memory.take<int32_t>(batch * tiles());
}

void code_points(const AssignPlan& sizes, const void* x, const CentroidFilter& filter, void* stream) {
  if (sizes.batch == 0) return;
  const KnnFilterPlan& plan = filter.plan;
  const auto on = static_cast<Stream>(stream);
  dispatch_stored(sizes.dtype, [&](auto zero) {
    using E = decltype(zero);
    if constexpr (sizeof(accumulator_t<E>) == sizeof(float)) {
      auto* const average = &mean_of_rows<E>;
      auto* const code = &code_rows<RowValue::kSquaredDistance, E>;
      for (int64_t item = 0; item < sizes.batch; ++item) {
        const E* const points = static_cast<const E*>(x) + item * sizes.n * sizes.d;
        float* const mean = filter.mean + item * sizes.d;
        DC_LAUNCH(average, static_cast<unsigned>(ceil_div(sizes.d, kWarp)), kThreads, 0, on)
        (MeanOfRows<E>{points, mean, sizes.n, sizes.d});
        DC_LAUNCH(code, static_cast<unsigned>(ceil_div(filter.padded(), kWarps)), kThreads, 0, on)
        (CodeRows<E>{points,
                     mean,
                     filter.point_codes + item * filter.padded() * plan.code_depth,
                     filter.point_sizes + item * filter.padded(),
                     nullptr,
                     sizes.n,
                     filter.padded(),
                     sizes.d,
                     plan.code_depth,
                     1,
                     {plan.slack(), plan.smallest(), sizes.d}});
      }
    }
  });
}

void find_bad_rows(DType dtype, const void* data, int64_t rows, int64_t cols, const int32_t* suspect, RowFlag* bad_row,
                   void* stream) {
  if (rows == 0) return;
  dispatch_stored(dtype, [&](auto zero) {
    using E = decltype(zero);
    auto* const kernel = &find_bad_row<E>;
    DC_LAUNCH(kernel, blocks_over(rows * cols), kThreads, 0, static_cast<Stream>(stream))
    (static_cast<const E*>(data), rows, cols, suspect, bad_row);
  });
}

void search_centroids(const AssignPlan& plan, const Search& to_do, void* stream) {
  if (plan.batch * plan.n == 0) return;
  dispatch_stored(plan.dtype, [&](auto zero) {
    using E = decltype(zero);
    using T = accumulator_t<E>;
    CentroidSearch<E> search{plan,
                             static_cast<const E*>(to_do.x),
                             static_cast<const T*>(to_do.centroids),
                             to_do.fresh,
                             to_do.labels,
                             static_cast<T*>(to_do.distances),
                             to_do.done,
                             to_do.range,
                             to_do.bad_row};
    if constexpr (sizeof(T) == sizeof(float)) {
      if (to_do.filter != nullptr) {
        search_filtered(search, *to_do.filter, static_cast<Stream>(stream));
        search.again = to_do.filter->again;
      }
      if (rows_start_on_vectors(to_do.x, plan.d) && rows_start_on_vectors(to_do.centroids, plan.d))
        return launch_search<4>(search, static_cast<Stream>(stream));
    }
    launch_search<1>(search, static_cast<Stream>(stream));
  });
}

void kmeans_assign(const AssignPlan& plan, const void* x, const void* centroids, int64_t* labels, void* distances,
                   RowFlag* bad_rows, const CentroidFilter* filter, void* stream) {
  const DType centroid_dtype = plan.dtype == DType::kDouble ? DType::kDouble : DType::kFloat;
  find_bad_rows(centroid_dtype, centroids, plan.batch * plan.clusters, plan.d, nullptr, bad_rows + 1, stream);
  if (filter != nullptr && plan.batch * plan.n > 0) code_points(plan, x, *filter, stream);
  search_centroids(plan, {x, centroids, nullptr, labels, distances, nullptr, nullptr, bad_rows, filter}, stream);
}

}  // namespace deepclust::cuda
