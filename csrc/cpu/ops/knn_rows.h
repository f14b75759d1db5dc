// What a search does with each row: memory to pack it in, whether it is finite, its mean, its length.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "../../torch/parallel.h"
#include "../knn/packing.h"

namespace deepclust::cpu {

inline constexpr int64_t kPrepareRows = 960;  // rows of a task that only reads them: whole panels

template <typename T>
struct Scratch {
  Packing packing, fallback;
  bool tiles;
  int64_t codes;
  Buffer<T> packed, offset, slack, half, lift, base,
      scale;  // packed: also for what codes fall back on, which takes more
  Buffer<int32_t> shift;
  Scratch(int64_t count, int64_t depth, Packing packing, bool tiles, bool rounded)
      : packing(packing),
        fallback(packing == Packing::int8 && have_int16_tile() ? Packing::int16
                                                               : packing_without_codes<T>(depth, tiles, rounded)),
        tiles(tiles),
        codes(is_coded(packing) ? PackedPoints<T>::padded(count) : 0),
        packed(Panels<T>::size(fallback == Packing::bf16 ? bf16_depth(depth, tiles) : depth, count)),
        offset(PackedPoints<T>::padded(count)),
        slack(PackedPoints<T>::padded(count)),
        half(codes),
        lift(codes),
        base(codes),
        scale(codes),
        shift(codes) {}
  PackedPoints<T> points(const T* rows, int64_t row_stride, int64_t count, int64_t depth) const {
    for (int64_t i = count; i < PackedPoints<T>::padded(count); ++i)
      offset.get()[i] = std::numeric_limits<T>::infinity();
    for (int64_t i = count; i < codes; ++i) {
      scale.get()[i] = 0;
      shift.get()[i] = 0;
    }
    PackedPoints<T> points{rows,         count,       depth,      row_stride,
                           packing,      fallback,    tiles,      {packed.get(), 0, count},
                           offset.get(), slack.get(), half.get(), lift.get(),
                           base.get(),   scale.get(), shift.get()};
    set_packing(points, packing);
    return points;
  }
};

// f(first, count) for pieces of whole panels, its maximum over all of them; NaN wins.
template <typename F>
double largest_of_pieces(int64_t count, int64_t depth, const F& f) {
  const int64_t pieces = ceil_div(count, kPrepareRows);
  const Buffer<double> largest(pieces);
  parallel_tasks(pieces, count * depth, [&](int64_t piece) {
    const int64_t first = piece * kPrepareRows;
    largest.get()[piece] = f(first, std::min(kPrepareRows, count - first));
  });
  double all = 0;
  for (int64_t piece = 0; piece < pieces; ++piece)
    if (!(largest.get()[piece] <= all)) all = largest.get()[piece];
  return all;
}

// The first row that holds NaN or infinity, -1 if none does. Columns are summed on the way: sums [depth].
template <typename T>
int64_t sum_finite(const PackedPoints<T>& points, double* sums) {
  const int64_t depth = points.depth, pieces = ceil_div(points.count, kPrepareRows);
  const Buffer<double> partial(std::max<int64_t>(1, pieces) * depth);
  std::fill(partial.get(), partial.get() + pieces * depth, 0.0);
  parallel_tasks(pieces, points.count * depth, [&](int64_t piece) {
    const int64_t first = piece * kPrepareRows, rows = std::min(kPrepareRows, points.count - first);
    add_columns(Matrix<const T>{points.row(first), rows, depth, points.row_stride, 1}, partial.get() + piece * depth);
  });
  std::fill(sums, sums + depth, 0.0);
  for (int64_t i = 0; i < pieces * depth; ++i) sums[i % depth] += partial.get()[i];
  // A sum of finite doubles may overflow, so the rows decide.
  if (std::all_of(sums, sums + depth, [](double sum) { return std::isfinite(sum); })) return -1;
  for (int64_t i = 0; i < points.count; ++i)
    if (!std::all_of(points.row(i), points.row(i) + depth, [](T value) { return std::isfinite(value); })) return i;
  return -1;
}

// Rows of length 1 in `out`, a zero row as it is. Scaled by the largest entry first: squares neither over- nor
// underflow.
template <typename T>
void normalise(const PackedPoints<T>& points, T* out) {
  largest_of_pieces(points.count, points.depth, [&](int64_t first, int64_t count) {
    for (int64_t i = first; i < first + count; ++i) {
      const T* row = points.row(i);
      double largest = 0, sum = 0;
      for (int64_t k = 0; k < points.depth; ++k) largest = std::max(largest, std::abs(static_cast<double>(row[k])));
      const double scale = largest > 0 ? largest : 1.0;
      for (int64_t k = 0; k < points.depth; ++k) sum += (row[k] / scale) * (row[k] / scale);
      const double length = sum > 0 ? std::sqrt(sum) : 1.0;
      for (int64_t k = 0; k < points.depth; ++k) out[i * points.depth + k] = static_cast<T>(row[k] / scale / length);
    }
    return 0.0;
  });
}

}  // namespace deepclust::cpu
