#include <algorithm>
#include <optional>

#include "kmeans_filter.h"
#include "kmeans_kernel.cuh"

namespace deepclust::cuda {
namespace {

template <typename T>
struct KMeansMemory {
  Workspace memory;
  Lloyd<T> all;
  std::optional<CentroidFilter> filter;

  KMeansMemory(const KMeansPlan& plan, const KMeansOutputs& out, void* base, KMeansFlags* flags)
      : memory(base), all(memory, plan, out, flags) {
    void* const behind = base == nullptr ? nullptr : static_cast<unsigned char*>(base) + memory.bytes();
    if (plan.filtered) filter.emplace(plan, behind);
  }
  std::size_t bytes() const { return memory.bytes() + (filter ? filter->memory.bytes() : 0); }
  const CentroidFilter* its_filter() const { return filter ? &*filter : nullptr; }
};

unsigned blocks_for(int64_t threads) {
  return static_cast<unsigned>(ceil_div(threads, kThreads));
}

}  // namespace

KMeansPlan::KMeansPlan(const AssignPlan& sizes, int64_t max_iter, double tol, int64_t empty, bool spherical,
                       const double* weights, bool filtered)
    : AssignPlan(sizes),
      max_iter(max_iter),
      tol(tol),
      empty(static_cast<EmptyRule>(empty)),
      spherical(spherical),
      weights(weights),
      unit(weights == nullptr ? 1.0 : ldexp(1.0, -fixed_point_digits(sizes.n))),
      filtered(filtered) {
  const int64_t most = (n + 63) / 64;
  pass_rows = most > 256 ? most : 256;
  passes = ceil_div(n, pass_rows);
  square_rows = std::max<int64_t>(kWarps, ceil_div(n, 4 * 132));
  squares = ceil_div(n, square_rows);
}

std::size_t KMeansPlan::workspace_bytes() const {
  return dtype == DType::kDouble ? KMeansMemory<double>(*this, {}, nullptr, nullptr).bytes()
                                 : KMeansMemory<float>(*this, {}, nullptr, nullptr).bytes();
}

void start_kmeans(const KMeansPlan& plan, const void* x, const KMeansOutputs& out, void* workspace, KMeansFlags* flags,
                  void* stream) {
  if (plan.batch == 0) return;
  const auto on = static_cast<Stream>(stream);
  dispatch_stored(plan.dtype, [&](auto zero) {
    using E = decltype(zero);
    using T = accumulator_t<E>;
    const KMeansMemory<T> memory(plan, out, workspace, flags);
    const Lloyd<T>& all = memory.all;
    const E* const points = static_cast<const E*>(x);
    auto* const clear = &clear_clusters<T>;
    auto* const parts = &column_parts<E>;
    auto* const columns = &finish_columns<T>;
    auto* const squares = &centred_squares<E>;
    DC_LAUNCH(clear, blocks_over(plan.batch * (plan.n + plan.clusters * plan.d)), kThreads, 0, on)(all);
    DC_LAUNCH(parts, blocks_for(plan.batch * plan.passes * plan.d), kThreads, 0, on)(plan, all.clusters, points);
    DC_LAUNCH(columns, blocks_for(plan.batch * plan.d), kThreads, 0, on)(plan, all.clusters);
    DC_LAUNCH(squares, static_cast<unsigned>(plan.batch * plan.squares), kThreads, 0, on)(plan, all.clusters, points);
    find_bad_rows(plan.dtype, x, plan.batch * plan.n, plan.d, all.clusters.suspect, &flags->bad_row, stream);
    if (plan.filtered) code_points(plan, x, *memory.filter, stream);
  });
}

void iterate_kmeans(const KMeansPlan& plan, const void* x, const KMeansOutputs& out, int64_t first, int64_t last,
                    void* workspace, KMeansFlags* flags, void* stream) {
  if (plan.batch == 0) return;
  const auto on = static_cast<Stream>(stream);
  dispatch_stored(plan.dtype, [&](auto zero) {
    using E = decltype(zero);
    using T = accumulator_t<E>;
    const KMeansMemory<T> memory(plan, out, workspace, flags);
    const Lloyd<T>& all = memory.all;
    const ClusterSums<T>& clusters = all.clusters;
    const E* const points = static_cast<const E*>(x);
    const Search search{x,       out.centroids, clusters.fresh,     nullptr, all.distances, clusters.done,
                        nullptr, nullptr,       memory.its_filter()};
    const SumCut cut(plan);
    const auto over_points = static_cast<unsigned>(plan.batch * MoveCut(plan).blocks);
    const auto over_clusters = static_cast<unsigned>(plan.batch * Lloyd<T>::cluster_blocks(plan.clusters));
    auto* const count = &count_moves<T>;
    auto* const place = &place_moves<T>;
    auto* const sum = &sum_moves<E>;
    auto* const finish = &finish_iteration<E>;
    for (int64_t iteration = first; iteration < last; ++iteration) {
      search_centroids(plan, search, stream);
      DC_LAUNCH(count, over_points, kThreads, 0, on)(plan, clusters, all.labels);
      DC_LAUNCH(place, over_points, kThreads, 0, on)(plan, clusters, all.labels);
      DC_LAUNCH(sum, static_cast<unsigned>(plan.batch * cut.blocks * cut.slices), kThreads, 0, on)
      (plan, clusters, cut, points);
      DC_LAUNCH(finish, over_clusters, kThreads, 0, on)(all, points, iteration);
    }
  });
}

void finish_kmeans(const KMeansPlan& plan, const void* x, const KMeansOutputs& out, void* workspace, void* stream) {
  if (plan.batch == 0) return;
  const auto on = static_cast<Stream>(stream);
  dispatch_stored(plan.dtype, [&](auto zero) {
    using T = accumulator_t<decltype(zero)>;
    const KMeansMemory<T> memory(plan, out, workspace, nullptr);
    const Lloyd<T>& all = memory.all;
    const Search search{x,       out.centroids, nullptr, out.labels,         all.distances,
                        nullptr, nullptr,       nullptr, memory.its_filter()};
    search_centroids(plan, search, stream);
    const int64_t blocks = Lloyd<T>::blocks(plan.n);
    const int64_t* const everything = nullptr;
    auto* const sum = &sum_distances<T>;
    auto* const finish = &finish_matrices<T>;
    DC_LAUNCH(sum, static_cast<unsigned>(plan.batch * blocks), kThreads, 0, on)
    (all.distances, plan.weights, plan.n, blocks, everything, all.block_sums);
    DC_LAUNCH(finish, static_cast<unsigned>(plan.batch), kThreads, 0, on)(all);
  });
}

}  // namespace deepclust::cuda
