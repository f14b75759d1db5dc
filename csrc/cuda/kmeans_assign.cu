#include "kmeans_assign_kernel.cuh"

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
  if (search.plan.clusters <= kNarrow) return launch_search<RowTile<256, 16>, kVec>(search, stream);
  launch_search<RowTile<64, 64>, kVec>(search, stream);
}

}  // namespace

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
    const CentroidSearch<E> search{plan,
                                   static_cast<const E*>(to_do.x),
                                   static_cast<const T*>(to_do.centroids),
                                   to_do.fresh,
                                   to_do.labels,
                                   static_cast<T*>(to_do.distances),
                                   to_do.done,
                                   to_do.range,
                                   to_do.bad_row};
    if constexpr (sizeof(T) == sizeof(float)) {
      if (rows_start_on_vectors(to_do.x, plan.d) && rows_start_on_vectors(to_do.centroids, plan.d))
        return launch_search<4>(search, static_cast<Stream>(stream));
    }
    launch_search<1>(search, static_cast<Stream>(stream));
  });
}

void kmeans_assign(const AssignPlan& plan, const void* x, const void* centroids, int64_t* labels, void* distances,
                   RowFlag* bad_rows, void* stream) {
  const DType centroid_dtype = plan.dtype == DType::kDouble ? DType::kDouble : DType::kFloat;
  find_bad_rows(centroid_dtype, centroids, plan.batch * plan.clusters, plan.d, nullptr, bad_rows + 1, stream);
  search_centroids(plan, {x, centroids, nullptr, labels, distances, nullptr, nullptr, bad_rows}, stream);
}

}  // namespace deepclust::cuda
