#include <cstring>
#include <type_traits>
#include <utility>

#include "knn_filter.cuh"
#include "knn_select_kernel.cuh"
#include "merge_chunks_kernel.cuh"

namespace deepclust::cuda {
namespace {

template <typename T>
struct KnnSpace {
  using Key = key_t<T>;
  Workspace memory;
  unsigned long long* first_bad;
  T* rows = nullptr;  // the copy that is searched
  T* candidates = nullptr;
  RankedList<Key> partials{}, chosen{}, scratch{};
  Key* keys = nullptr;

  KnnSpace(const KnnPlan& plan, void* base) : memory(base), first_bad(memory.take<unsigned long long>(1)) {
    const auto list = [&](int64_t size) {
      Key* const list_keys = memory.take<Key>(size);
      return RankedList<Key>{list_keys, memory.take<uint32_t>(size)};
    };
    if (plan.copied()) {
      candidates = memory.take<T>(plan.batch * plan.points * plan.depth);
      rows = plan.graph ? candidates : memory.take<T>(plan.batch * plan.queries * plan.depth);
    }
    if (plan.filtered) return;
    if (plan.listed) {
      if (plan.chunks > 1) partials = list(plan.batch * plan.queries * plan.chunks * plan.k);
      return;
    }
    keys = memory.take<Key>(plan.strip_rows() * plan.points);
    chosen = list(plan.strip_rows() * plan.k);
    if (plan.runs() > 1) scratch = list(plan.strip_rows() * plan.k);
    if (plan.parts > 1) partials = list(plan.strip_rows() * plan.parts * plan.k);
  }
};

template <typename E>
KnnInput<accumulator_t<E>> input_of(const KnnPlan& plan, const void* x, const void* query,
                                    const KnnSpace<accumulator_t<E>>& space) {
  using T = accumulator_t<E>;
  if (plan.copied()) return {plan, space.rows, space.candidates};
  return {plan, static_cast<const T*>(plan.graph ? x : query), static_cast<const T*>(x)};
}

unsigned blocks_for(int64_t threads) {
  return static_cast<unsigned>(ceil_div(threads, kThreads));
}

template <typename E>
void prepare(const KnnPlan& plan, const void* rows, int64_t count, bool is_x, accumulator_t<E>* out,
             unsigned long long* first_bad, Stream stream) {
  const KnnRows<E> task{static_cast<const E*>(rows),
                        out,
                        plan.batch * count,
                        count,
                        plan.depth,
                        plan.metric == Metric::kCosine,
                        is_x ? 1u : 0u,
                        first_bad};
  auto* const kernel = &prepare_knn_rows<E>;
  DC_LAUNCH(kernel, static_cast<unsigned>(ceil_div(task.total, kWarps)), kThreads, 0, stream)(task);
}

// Calls f(value, vec) with the kind of value and the width of the loads as compile-time constants.
template <typename T, typename F>
void with_tile(const KnnInput<T>& input, F&& f) {
  using Squared = std::integral_constant<RowValue, RowValue::kSquaredDistance>;
  using Product = std::integral_constant<RowValue, RowValue::kProduct>;
  const auto by_width = [&](auto value) {
    if constexpr (std::is_same_v<T, float>)
      if (rows_start_on_vectors(input.rows, input.plan.depth) &&
          rows_start_on_vectors(input.candidates, input.plan.depth))
        return f(value, std::integral_constant<int, 4>{});
    f(value, std::integral_constant<int, 1>{});
  };
  input.plan.squared() ? by_width(Squared{}) : by_width(Product{});
}

template <typename T>
void search_lists(const KnnLists<T>& task, Stream stream) {
  const KnnPlan& plan = task.input.plan;
  const auto smem = static_cast<std::size_t>(KnnPlan::kTile * plan.k) * (sizeof(key_t<T>) + sizeof(uint32_t));
  with_tile(task.input, [&](auto value, auto vec) {
    auto* const kernel = &nearest_in_chunks<T, decltype(value)::value, decltype(vec)::value>;
    DC_LAUNCH(kernel, static_cast<unsigned>(plan.tiles() * plan.chunks), kThreads, smem, stream)(task);
  });
  if (plan.chunks == 1) return;
  const int64_t rows = plan.batch * plan.queries;
  const int row_warps = plan.chunks > kWarps ? kWarps : 1;
  DC_LAUNCH(merge_chunks<T>, static_cast<unsigned>(ceil_div(rows * row_warps, kWarps)), kThreads, 0, stream)
  (task, rows, row_warps);
}

template <typename T>
void search_strip(KnnStrip<T> strip, Stream stream) {
  const KnnPlan& plan = strip.input.plan;
  const int64_t rows = strip.tiles * plan.tile_rows, col_tiles = ceil_div(plan.points, KnnPlan::kTile);
  with_tile(strip.input, [&](auto value, auto vec) {
    auto* const kernel = &write_costs<T, decltype(value)::value, decltype(vec)::value>;
    DC_LAUNCH(kernel, static_cast<unsigned>(strip.tiles * col_tiles), kThreads, 0, stream)(strip);
  });
  DC_LAUNCH(select_neighbours<T>, static_cast<unsigned>(rows * plan.parts), kThreads, 0, stream)(strip);
  if (plan.parts > 1) DC_LAUNCH(select_of_parts<T>, static_cast<unsigned>(rows), kThreads, 0, stream)(strip);
  DC_LAUNCH(sort_runs<T>, static_cast<unsigned>(rows * plan.runs()), kThreads, 0, stream)(strip, plan.runs());
  for (int64_t length = KnnPlan::kRun; length < plan.k; length *= 2) {
    const bool last = 2 * length >= plan.k;
    DC_LAUNCH(merge_runs<T>, blocks_for(rows * plan.k), kThreads, 0, stream)(strip, length, last);
    std::swap(strip.chosen, strip.scratch);
  }
}

// All rows by the plain kernels.
template <typename T>
void search_all(const KnnInput<T>& input, const KnnSpace<T>& space, const Neighbours<T>& out, Stream stream) {
  const KnnPlan& plan = input.plan;
  if (plan.listed) return search_lists<T>({input, space.partials, out}, stream);
  for (int64_t first = 0; first < plan.tiles(); first += plan.strip_tiles) {
    const int64_t tiles = std::min(plan.strip_tiles, plan.tiles() - first);
    search_strip<T>({input, first, tiles, space.keys, space.chosen, space.scratch, space.partials, out}, stream);
  }
}

}  // namespace

bool has_tensor_cores() {
#if defined(__CUDACC__)
  int device = 0, major = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess && major >= 8;
#else
  return true;
#endif
}

std::size_t KnnPlan::workspace_bytes() const {
  if (dtype == DType::kDouble) return KnnSpace<double>(*this, nullptr).memory.bytes();
  const std::size_t rows = KnnSpace<float>(*this, nullptr).memory.bytes();
  return filtered ? rows + FilterSpace(filter, nullptr).memory.bytes() + without_filter().workspace_bytes() : rows;
}

KnnBadRow knn_prepare(const KnnPlan& plan, const void* x, const void* query, void* workspace, void* stream) {
  if (plan.batch * plan.queries == 0) return {};
  unsigned long long found = ~0ull;
  dispatch_stored(plan.dtype, [&](auto zero) {
    using E = decltype(zero);
    const KnnSpace<accumulator_t<E>> space(plan, workspace);
    const auto on = static_cast<Stream>(stream);
    DC_LAUNCH(clear_first_bad, 1, kWarp, 0, on)(space.first_bad);
    if (!plan.graph) prepare<E>(plan, query, plan.queries, false, space.rows, space.first_bad, on);
    prepare<E>(plan, x, plan.points, true, space.candidates, space.first_bad, on);
    found = read_back(space.first_bad, on);
  });
  if (found == ~0ull) return {};
  return {found >> 32 & 1 ? "x" : "query", static_cast<int64_t>(found & 0xffffffffu)};
}

void knn_search(const KnnPlan& plan, const void* x, const void* query, void* workspace, void* values, int64_t* indices,
                void* stream) {
  if (plan.batch * plan.queries == 0) return;
  dispatch_stored(plan.dtype, [&](auto zero) {
    using E = decltype(zero);
    using T = accumulator_t<E>;
    const KnnSpace<T> space(plan, workspace);
    const auto on = static_cast<Stream>(stream);
    const KnnInput<T> input = input_of<E>(plan, x, query, space);
    const Neighbours<T> out{static_cast<T*>(values), indices, plan.squared()};
    if constexpr (std::is_same_v<T, float>) {
      if (plan.filtered) {
        unsigned char* const behind = static_cast<unsigned char*>(workspace) + space.memory.bytes();
        const FilterSpace filter(plan.filter, behind);
        const KnnPlan plain = plan.without_filter();
        const KnnSpace<float> plain_space(plain, behind + filter.memory.bytes());
        return search_filtered(input, filter, out, on, [&](const float* rows, const float* candidates) {
          search_all<float>({plain, rows, candidates}, plain_space, filter.again_out(plan.squared()), on);
        });
      }
    }
    search_all<T>(input, space, out, on);
  });
}

}  // namespace deepclust::cuda
