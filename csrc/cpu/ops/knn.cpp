#include "../knn/knn.h"

#include <string>
#include <tuple>

#include "../../torch/dispatch.h"
#include "../../torch/knn_checks.h"
#include "../../torch/parallel.h"
#include "../knn/copies.h"
#include "../knn/projection.h"
#include "knn_groups.h"
#include "knn_rows.h"

namespace deepclust::cpu {
namespace {

constexpr int64_t kFinishRows = 256;
constexpr int64_t kLook = 2;  // a block of columns in so many is looked at first

// x as [batch, count, depth] in the accumulator's dtype, every row in one piece.
Tensor as_rows(const Tensor& x) {
  Tensor rows = as_accumulator(x);
  if (rows.dim() != 3) rows = torch::stable::reshape(rows, {-1, x.size(x.dim() - 2), x.size(x.dim() - 1)});
  return rows.stride(2) == 1 || rows.size(2) == 1 ? rows : torch::stable::contiguous(rows);
}

// The row of an argument that is not finite. Tasks must not raise: they hand it back.
struct BadRow {
  const char* arg = nullptr;
  int64_t row = -1;
};

template <typename T>
BadRow search(const Rows<T>& x, const Rows<T>* query, int64_t depth, const std::string& metric, int64_t k,
              bool in_groups, T* values, int64_t* indices);

// Limits for projected rows: the costs of what is nearest by the codes alone, in half of the pairs.
template <typename T, typename F>
void look(const Lists<T>& lists, const PackedPoints<T>& rows, const PackedPoints<T>& points, int64_t parts,
          const F& visit) {
  const Buffer<T> none(PackedPoints<T>::padded(std::max(rows.count, points.count)));
  std::fill(none.get(), none.get() + PackedPoints<T>::padded(std::max(rows.count, points.count)), T(0));
  const auto rough = [&](PackedPoints<T> p) {
    std::fill(p.base + p.count, p.base + PackedPoints<T>::padded(p.count), std::numeric_limits<T>::infinity());
    p.rough = true;
    p.offset = p.base;
    p.slack = none.get();
    return p;
  };
  // Of those nearest by the codes some are not: with twice as many, k of them are about the nearest.
  Lists<T> longer = lists;
  longer.k += (lists.capacity - lists.k) / 2;
  visit(longer, rough(rows), rough(points), kLook);
  const int64_t pieces = ceil_div(rows.count, kFinishRows);
  parallel_tasks(pieces, rows.count * parts * lists.capacity * points.depth, [&](int64_t piece) {
    const int64_t end = std::min(rows.count, (piece + 1) * kFinishRows);
    for (int64_t i = piece * kFinishRows; i < end; ++i)
      for (int64_t part = 0; part < parts; ++part) lists.settle(part * rows.count + i, rows, i, points);
  });
}

// One graph, or one set of queries: values and indices [rows, k]. in_groups: where the rows gather in groups, they may
// be searched group by group.
template <typename T>
BadRow neighbours(PackedPoints<T> points, PackedPoints<T>* queries, const std::string& metric, int64_t k,
                  bool in_groups, T* values, int64_t* indices) {
  const bool squared = metric == "euclidean";
  const int64_t depth = points.depth;
  const Buffer<double> sums(depth);
  if (queries != nullptr)
    if (const int64_t row = sum_finite(*queries, sums.get()); row >= 0) return {"query", row};
  if (const int64_t row = sum_finite(points, sums.get()); row >= 0) return {"x", row};

  const bool cosine = metric == "cosine";
  const Buffer<T> unit(cosine ? points.count * depth : 0), unit_queries(cosine && queries ? queries->count * depth : 0);
  const auto to_unit = [&](PackedPoints<T>& p, T* out) {
    normalise(p, out);
    p.rows = out;
    p.row_stride = depth;
  };
  if (cosine) to_unit(points, unit.get());
  if (cosine && queries != nullptr) to_unit(*queries, unit_queries.get());
  if (cosine && is_coded(points.packing)) sum_finite(points, sums.get());  // codes are of rows less their mean

  const Buffer<T> mean(depth);
  for (int64_t d = 0; d < depth; ++d) mean.get()[d] = static_cast<T>(sums.get()[d] / static_cast<double>(points.count));
  if constexpr (std::is_same_v<T, float>)
    if (in_groups && squared && worth_a_look((queries != nullptr ? *queries : points).count, points.count)) {
      const Rows<T> all{points.rows, points.row_stride, points.count};
      const auto find = [&](const Rows<T>& members, const Rows<T>* asked, int64_t k, T* found, int64_t* places) {
        search<T>(members.count > 0 ? members : all, asked, depth, metric, k, false, found, places);
      };
      if (grouped_search(points, queries, mean.get(), k, values, indices, find)) return {};
    }
  const auto prepare = [&](const PackedPoints<T>& p) {
    const T* shift = squared || is_coded(p.packing) ? mean.get() : nullptr;
    return largest_of_pieces(
        p.count, depth, [&](int64_t first, int64_t count) { return prepare_rows(p, shift, squared, first, count); });
  };
  const auto prepare_all = [&] {
    const bool points_hold = bounds_hold<T>(prepare(points), depth);
    const bool hold = (queries == nullptr || bounds_hold<T>(prepare(*queries), depth)) && points_hold;
    if (!is_coded(points.packing)) return hold;
    const auto most = [](const PackedPoints<T>& p) {
      return p.count > 0 ? *std::max_element(p.lift, p.lift + p.count) : T(0);
    };
    points.most_lift = queries == nullptr ? most(points) : std::max(most(points), most(*queries));
    if (queries != nullptr) queries->most_lift = points.most_lift;
    return hold;
  };
  Subspace space;
  if constexpr (std::is_same_v<T, float>)
    if (points.packing == Packing::int16 &&
        worth_projecting((queries != nullptr ? *queries : points).count, points.count, depth)) {
      space = Subspace::of(points.rows, points.row_stride, mean.get(), points.count, depth,
                           width_for_neighbours(k, points.count));
      if (space.width() > 0) {
        set_packing(points, Packing::projected, &space);
        if (queries != nullptr) set_packing(*queries, Packing::projected, &space);
      }
    }
  bool bounded = prepare_all();
  if constexpr (std::is_same_v<T, float>) {
    if (bounded && is_coded(points.packing) && points.packing != Packing::projected &&
        !codes_pay(queries != nullptr ? *queries : points, points, k, queries == nullptr)) {
      set_packing(points, points.fallback);
      if (queries != nullptr) set_packing(*queries, points.packing);
      bounded = prepare_all();
    }
  }

  const PackedPoints<T>& rows = queries != nullptr ? *queries : points;
  const QueryPlan by_query(rows.count, points.count);
  const int64_t parts = queries != nullptr && bounded ? by_query.parts : 1, count = parts * rows.count;
  const int64_t capacity = Lists<T>::room(k, points.count - (queries != nullptr ? 0 : 1), points.packing);
  const Buffer<T> uppers(count * capacity), slacks(count);
  const Buffer<int32_t> candidates(count * capacity), counts(count), lasts(count);
  const Buffer<T> limits(PackedPoints<T>::padded(count)), leasts(count);
  std::fill(counts.get(), counts.get() + count, 0);
  std::fill(lasts.get(), lasts.get() + count, std::numeric_limits<int32_t>::max());
  std::fill(slacks.get(), slacks.get() + count, T(0));
  std::fill(limits.get(), limits.get() + count, -std::numeric_limits<T>::infinity());
  std::fill(leasts.get(), leasts.get() + count, -std::numeric_limits<T>::infinity());
  std::fill(limits.get() + count, limits.get() + PackedPoints<T>::padded(count), std::numeric_limits<T>::infinity());
  const Lists<T> lists{squared,      bounded,      k,           capacity,     uppers.get(), candidates.get(),
                       counts.get(), slacks.get(), lasts.get(), limits.get(), leasts.get()};

  // Every pair, or of every row and some of the columns: one in `step` blocks.
  const auto visit_all = [&](const Lists<T>& lists, const PackedPoints<T>& rows, const PackedPoints<T>& points,
                             int64_t step) {
    if (queries != nullptr) {
      parallel_tasks(by_query.tasks(), rows.count * points.count * depth,
                     [&](int64_t task) { query_task(by_query, lists, rows, points, task, step); });
      return;
    }
    const TilePlan plan(points.count);
    const int64_t work = plan.tile_rows * plan.tile_rows * depth;
    parallel_tasks(plan.tiles, plan.tiles * work, [&](int64_t tile) { graph_task(plan, lists, points, tile, tile); });
    for (int64_t round = 0; round + 1 < plan.players; round += step)
      parallel_tasks(plan.players / 2, plan.players / 2 * work, [&](int64_t task) {
        const auto [first, second] = tournament_pair(plan.players, round, task);
        if (std::max(first, second) < plan.tiles) graph_task(plan, lists, points, first, second);
      });
  };
  if (!bounded) {
    parallel_tasks(rows.count, rows.count * points.count * depth,
                   [&](int64_t i) { plain_task(lists, rows, i, points, queries == nullptr); });
  } else {
    if (points.packing == Packing::projected) look(lists, rows, points, parts, visit_all);
    visit_all(lists, rows, points, 1);
  }
  const int64_t pieces = ceil_div(rows.count, kFinishRows);
  parallel_tasks(pieces, rows.count * k * parts * depth, [&](int64_t piece) {
    const int64_t end = std::min(rows.count, (piece + 1) * kFinishRows);
    for (int64_t i = piece * kFinishRows; i < end; ++i)
      lists.finish(i, parts, rows.count, rows, i, points, values + i * k, indices + i * k);
  });
  return {};
}

// One graph of x, or one set of queries, packed as suits them best.
template <typename T>
BadRow search(const Rows<T>& x, const Rows<T>* query, int64_t depth, const std::string& metric, int64_t k,
              bool in_groups, T* values, int64_t* indices) {
  const Rows<T>& asked = query != nullptr ? *query : x;
  // Rounded to bfloat16, similarities of rows far from the origin leave all in doubt: they are not centred.
  const bool tiles = have_amx(), rounded = metric == "euclidean" || !tiles;
  const Packing packing = first_packing<T>(asked.count, x.count, depth, k, query == nullptr, tiles, rounded);
  const Scratch<T> own(x.count, depth, packing, tiles, rounded),
      other(query != nullptr ? asked.count : 0, depth, packing, tiles, rounded);
  const PackedPoints<T> points = own.points(x.data, x.stride, x.count, depth);
  if (query == nullptr) return neighbours<T>(points, nullptr, metric, k, in_groups, values, indices);
  PackedPoints<T> queries = other.points(asked.data, asked.stride, asked.count, depth);
  return neighbours(points, &queries, metric, k, in_groups, values, indices);
}

// One graph, or one set of queries, of rows that may be copies of each other or gather in groups.
template <typename T>
BadRow search_rows(const Rows<T>& x, const Rows<T>* query, int64_t depth, const std::string& metric, int64_t k,
                   T* values, int64_t* indices) {
  const Rows<T>& asked = query != nullptr ? *query : x;
  const bool look = worth_a_look(asked.count, x.count);
  const Distinct<T> points(x, depth, query != nullptr ? k : k + 1, look);
  const Distinct<T> others(asked, depth, 1, look && query != nullptr);
  if (!points.has_copies() && !others.has_copies()) return search(x, query, depth, metric, k, true, values, indices);
  const Distinct<T>& queries = query != nullptr ? others : points;
  const Rows<T> rows = queries.rows();
  const Buffer<T> found(rows.count * k);
  const Buffer<int64_t> places(rows.count * k);
  const BadRow bad =
      search<T>(points.rows(), query != nullptr ? &rows : nullptr, depth, metric, k, true, found.get(), places.get());
  if (bad.row >= 0) return {bad.arg, (*bad.arg == 'q' ? queries : points).original(bad.row)};
  for (int64_t i = 0; i < asked.count; ++i) {
    const int64_t like = queries.like(i) * k;
    for (int64_t c = 0; c < k; ++c) {
      values[i * k + c] = found.get()[like + c];
      indices[i * k + c] = points.original(places.get()[like + c]);
    }
  }
  return {};
}

}  // namespace

// (x [.., n, d], query [.., q, d] or none) -> values, indices [.., n or q, k].
std::tuple<Tensor, Tensor> knn(const Tensor& x, const std::optional<Tensor>& query, int64_t k,
                               const std::string& metric) {
  check_knn(x, query, k, metric);
  const ScalarType dtype = accumulator_dtype(x.scalar_type());
  const std::vector<int64_t> sizes = knn_sizes(query ? *query : x, k);
  Tensor values = empty(sizes, dtype, x), indices = empty(sizes, ScalarType::Long, x);
  if (values.numel() == 0) return {values, indices};

  const Tensor points = as_rows(x), queries = query ? as_rows(*query) : points;
  const int64_t batch = points.size(0), count = points.size(1), depth = points.size(2), out = queries.size(1) * k;
  std::vector<BadRow> bad(static_cast<size_t>(batch));
  dispatch_accumulator(dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto item = [&](int64_t b) {
      const auto read = [&](const Tensor& t) {
        return Rows<T>{static_cast<const T*>(t.data_ptr()) + b * t.stride(0), t.stride(1), t.size(1)};
      };
      const Rows<T> asked = read(queries);
      bad[static_cast<size_t>(b)] = search_rows(read(points), query ? &asked : nullptr, depth, metric, k,
                                                static_cast<T*>(values.mutable_data_ptr()) + b * out,
                                                static_cast<int64_t*>(indices.mutable_data_ptr()) + b * out);
    };
    // Small items side by side, large ones one after another on all threads.
    const int64_t work = queries.size(1) * count * depth;
    if (work < int64_t{1} << 26)
      parallel_tasks(batch, batch * work, item);
    else
      for (int64_t b = 0; b < batch; ++b) item(b);
  });
  for (const BadRow& found : bad) check_finite_row(found.arg, found.row);
  return {values, indices};
}

}  // namespace deepclust::cpu

STABLE_TORCH_LIBRARY_IMPL(deepclust, CPU, library) {
  library.impl("knn", TORCH_BOX(&deepclust::cpu::knn));
}
