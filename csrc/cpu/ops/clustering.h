// What the k-means ops share on the side of libtorch: arguments as batches of contiguous matrices, points made ready
// for the search, one assignment of all points.
#pragma once

#include <cmath>
#include <optional>
#include <vector>

#include "../../torch/dispatch.h"
#include "../../torch/kmeans_checks.h"
#include "../../torch/parallel.h"
#include "../kmeans/cluster_sums.h"
#include "../kmeans/nearest.h"

namespace deepclust::cpu {

// `t` [.., rows, cols] in the accumulator's dtype, as contiguous matrices one after another.
struct Matrices {
  Tensor tensor;
  int64_t batch = 1, rows, cols;

  explicit Matrices(const Tensor& t) : tensor(as_accumulator(t)) {
    if (!tensor.is_contiguous()) tensor = torch::stable::contiguous(tensor);
    for (int64_t i = 0; i + 2 < t.dim(); ++i) batch *= t.size(i);
    rows = t.size(t.dim() - 2);
    cols = t.size(t.dim() - 1);
  }
  template <typename T>
  const T* matrix(int64_t index) const {
    return static_cast<const T*>(tensor.data_ptr()) + index * rows * cols;
  }
};

// Weights [.., rows] in double, if any: a row of them for every matrix.
class Weightings {
 public:
  // Raises where one is not between 0 and 1.
  Weightings(const char* op, const std::optional<Tensor>& weights) {
    if (!weights.has_value()) return;
    tensor_ = weights->is_contiguous() ? *weights : torch::stable::contiguous(*weights);
    rows_ = tensor_->size(tensor_->dim() - 1);
    for (int64_t i = 0; i < tensor_->numel(); ++i)
      STD_TORCH_CHECK(data()[i] >= 0.0 && data()[i] <= 1.0, op, ": 'sample_weight' must be between 0 and 1, got ",
                      data()[i]);
  }
  const double* row(int64_t index) const { return tensor_.has_value() ? data() + index * rows_ : nullptr; }

 private:
  const double* data() const { return static_cast<const double*>(tensor_->data_ptr()); }

  std::optional<Tensor> tensor_;
  int64_t rows_ = 0;
};

template <typename T>
void check_finite(const char* op, const char* arg, const T* data, int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows * cols; ++i)
    if (!std::isfinite(data[i])) refuse_row(op, arg, i / cols);
}

// Rows of a task that reads all of x once: at most 64 tasks, so that what each of them keeps stays small.
inline int64_t pass_rows(int64_t n) {
  return std::max(kSearchRows, ceil_div(n, 64));
}

// Fewer dimensions or points are coded as they are, and so are points that meet fewer centroids than their projection
// is worth, or fewer in all than the search for directions is: even on a Zen 3 at 8,000 points and 768 centroids.
inline constexpr int64_t kSubspaceDepth = 192, kSubspaceRows = 4096, kSubspaceMet = 768;
inline constexpr int64_t kSubspacePairs = int64_t{6} << 20;
// Share of the squares outside the span. Runs on Fashion-MNIST's pixels and 256 components took up to two thirds longer
// at .06 and .15; its pixels three times as long at .03, and twice at .25.
inline constexpr double kSubspaceRest = 0.1;
// The same where tiles make products so cheap that fewer distances in doubt are worth more directions: on an Emerald
// Rapids 256 components and 1,000 centroids take .36 s at .03, .60 at .06 and .81 at .1 (10 iterations), the pixels at
// 4,000 centroids 2.41, 2.41 and 3.09, and 3.17 at .015.
inline constexpr double kSubspaceRestOfTiles = 0.03;

// One matrix of points: its mean, the range of its columns, and the codes that the search reads.
template <typename T>
class ReadyPoints {
 public:
  // `met` is how many centroids a point will be held against, in all passes. Raises where x is not finite.
  ReadyPoints(const char* op, const T* x, int64_t n, int64_t d, int64_t met)
      : mean_(d),
        range_(d),
        bounds_(n),
        points{x, mean_.get(), n, d, best_codes(d), nullptr, bounds_.get()},
        codes_(prepare(op, met)) {
    points.codes = codes_.get();
    each_pass(n * (d + points.coded()) * 4,
              [&](int64_t, int64_t begin, int64_t end) { encode_points(points, begin, end); });
  }

  // f(task, begin, end) over rows of all points; `work` as for parallel_tasks.
  template <typename F>
  void each_pass(int64_t work, const F& f) const {
    const int64_t rows = pass_rows(points.n);
    parallel_tasks(ceil_div(points.n, rows), work,
                   [&](int64_t task) { f(task, task * rows, std::min(points.n, (task + 1) * rows)); });
  }

  // The distance of a column's furthest entry from its mean.
  double range(int64_t column) const { return range_.get()[column]; }

 private:
  // Everything but the codes; the bytes that those take.
  int64_t prepare(const char* op, int64_t met) {
    measure_columns(op);
    if (points.kind == Codes::none) return 0;
    if (points.d >= kSubspaceDepth && points.n >= kSubspaceRows && met >= kSubspaceMet &&
        points.n * met >= kSubspacePairs)
      space_ = Subspace::of(points.x, points.d, points.mean, points.n, points.d,
                            width_leaving(points.kind == Codes::int8_tiles ? kSubspaceRestOfTiles : kSubspaceRest));
    if (space_.width() > 0) points.space = &space_;
    return (points.n + kGroupRows) * points.depth();  // a tile's rows are all read, beyond n too
  }

  void measure_columns(const char* op) {
    const int64_t n = points.n, d = points.d, tasks = ceil_div(n, pass_rows(n));
    const Buffer<double> sums(tasks * d);
    const Buffer<T> least(tasks * d), largest(tasks * d);
    each_pass(n * d * 2, [&](int64_t task, int64_t begin, int64_t end) {
      column_stats(points.x, d, begin, end, {sums.get() + task * d, least.get() + task * d, largest.get() + task * d});
    });
    for (int64_t j = 0; j < d; ++j) {
      double sum = 0.0;
      T low = least.get()[j], high = largest.get()[j];
      for (int64_t task = 0; task < tasks; ++task) {
        sum += sums.get()[task * d + j];
        low = std::min(low, least.get()[task * d + j]);
        high = std::max(high, largest.get()[task * d + j]);
      }
      // A NaN or an infinity anywhere in the column reaches its sum.
      if (!std::isfinite(sum)) check_finite(op, "x", points.x, n, d);
      const T mean = static_cast<T>(sum / static_cast<double>(n));
      mean_.get()[j] = mean;
      range_.get()[j] = std::max(static_cast<double>(high) - mean, static_cast<double>(mean) - low);
    }
  }

  Buffer<T> mean_;
  Buffer<double> range_;
  Buffer<CodeBounds> bounds_;
  Subspace space_;

 public:
  Points<T> points;

 private:
  Buffer<int8_t> codes_;
};

// f(begin, end) over the points in tasks of the search, `clusters` centroids each.
template <typename T, typename F>
void each_search(const Points<T>& points, int64_t clusters, const F& f) {
  parallel_tasks(ceil_div(points.n, kSearchRows), points.n * points.d * (clusters / 4 + 1),
                 [&](int64_t task) { f(task * kSearchRows, std::min(points.n, (task + 1) * kSearchRows)); });
}

template <typename T>
void encode_all_centroids(const Points<T>& points, const T* centroids, CodedCentroids<T>& coded) {
  coded.centroids = centroids;
  parallel_tasks(coded.blocks(), coded.padded * points.d * 8,
                 [&](int64_t block) { encode_centroids(points, coded, block); });
  coded.find_largest();
}

// labels [n] of all points.
template <typename T>
void assign_all(const Points<T>& points, const T* centroids, CodedCentroids<T>& coded, int64_t* labels) {
  encode_all_centroids(points, centroids, coded);
  each_search(points, coded.clusters,
              [&](int64_t begin, int64_t end) { assign_points(points, coded, begin, end, labels + begin); });
}

// distance [n] of all points to their centroids; the sum, weighted where there are weights [n], in an order that the
// sizes fix.
template <typename T>
double all_label_distances(const ReadyPoints<T>& ready, const T* centroids, const double* weights,
                           const int64_t* labels, T* distance) {
  const Points<T>& points = ready.points;
  std::vector<double> sums(static_cast<size_t>(ceil_div(points.n, pass_rows(points.n))));
  ready.each_pass(points.n * points.d * 2, [&](int64_t task, int64_t begin, int64_t end) {
    double& sum = sums[static_cast<size_t>(task)];
    sum = label_distances(points.x, centroids, points.d, labels + begin, begin, end, distance + begin);
    if (weights == nullptr) return;
    sum = 0.0;
    for (int64_t i = begin; i < end; ++i)
      if (weights[i] > 0.0) sum += weights[i] * static_cast<double>(distance[i]);
  });
  double total = 0.0;
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace deepclust::cpu
