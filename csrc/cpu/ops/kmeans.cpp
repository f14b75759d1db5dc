#include "../kmeans/kmeans.h"

#include <optional>
#include <tuple>

#include "seeding.h"

namespace deepclust::cpu {
namespace {

// Where the records of one matrix go: one row an iteration.
struct Records {
  double* history;  // [max_iter, 3]: objective, share of points that moved, imbalance
  int64_t* empty;   // [max_iter]

  void write(int64_t iteration, double objective, double moved, double imbalance, int64_t empties) const {
    history[iteration * 3] = objective;
    history[iteration * 3 + 1] = moved;
    history[iteration * 3 + 2] = imbalance;
    empty[iteration] = empties;
  }
};

struct Options {
  int64_t max_iter;
  double tol;
  EmptyRule empty;
  bool spherical;
};

template <typename T>
void add_all_moves(const Clusters<T>& state, const T* x, const std::vector<Move>& moves) {
  const int64_t count = static_cast<int64_t>(moves.size());
  parallel_tasks(ceil_div(state.d, kSumColumns), count * state.d * 4, [&](int64_t task) {
    add_moves(Matrix<const T>{x, state.n, state.d, state.d, 1}, state.mean, state.scale, state.weights, moves.data(),
              count, task * kSumColumns, std::min(state.d, (task + 1) * kSumColumns), state.sums, state.ld);
  });
}

// The largest squared step of all centroids.
template <typename T>
double move_all_centroids(const Clusters<T>& state, bool spherical) {
  constexpr int64_t kOfEach = 64;
  std::vector<double> largest(static_cast<size_t>(ceil_div(state.clusters, kOfEach)), 0.0);
  parallel_tasks(ceil_div(state.clusters, kOfEach), state.clusters * state.d * 8, [&](int64_t task) {
    const Buffer<double> fresh(state.d);
    for (int64_t k = task * kOfEach; k < std::min(state.clusters, (task + 1) * kOfEach); ++k) {
      double& most = largest[static_cast<size_t>(task)];
      most = std::max(most, move_centroid(state, k, spherical, fresh.get()));
    }
  });
  return *std::max_element(largest.begin(), largest.end());
}

// One matrix: moves `centroids` and fills labels [n] and the records; returns the number of updates.
template <typename T>
int64_t lloyd(const ReadyPoints<T>& ready, const double* weights, T* centroids, int64_t clusters,
              const Options& options, int64_t* labels, const Records& records) {
  const Points<T>& points = ready.points;
  const int64_t n = points.n, d = points.d, ld = round_up(d, kLanes<double>);
  const Buffer<double> scale(d);
  for (int64_t j = 0; j < d; ++j) scale.get()[j] = fixed_point_scale(ready.range(j), n);
  const Buffer<int64_t> sums(clusters * ld), fresh(n);
  std::fill(sums.get(), sums.get() + clusters * ld, 0);
  std::fill(labels, labels + n, -1);
  std::vector<double> squares(static_cast<size_t>(ceil_div(n, pass_rows(n))));
  ready.each_pass(n * d * 2, [&](int64_t task, int64_t begin, int64_t end) {
    squares[static_cast<size_t>(task)] = centred_squares(points.x, points.mean, weights, d, begin, end);
  });
  const double unit = weights == nullptr ? 1.0 : std::ldexp(1.0, -fixed_point_digits(n));
  Clusters<T> state{clusters, n, d, ld, points.mean, scale.get(), weights, unit, 0.0, centroids, sums.get(), {}, {}};
  for (const double part : squares) state.squares += part;
  state.count.assign(static_cast<size_t>(clusters), 0);
  state.total = state.count;

  CodedCentroids<T> coded(points, clusters);
  std::vector<Move> moves;
  int64_t iteration = 0;
  for (bool settled = false; iteration < options.max_iter && !settled; ++iteration) {
    assign_all(points, centroids, coded, fresh.get());
    count_moves(state, labels, fresh.get(), moves);
    add_all_moves(state, points.x, moves);
    std::copy(fresh.get(), fresh.get() + n, labels);
    const int64_t empties = std::count(state.count.begin(), state.count.end(), 0);
    records.write(iteration, objective_of(state), static_cast<double>(moves.size()) / static_cast<double>(n),
                  imbalance_of(state), empties);
    if (empties > 0 && options.empty != EmptyRule::kKeep) {
      std::vector<T> distance(static_cast<size_t>(n));
      all_label_distances(ready, centroids, weights, labels, distance.data());
      moves.clear();
      seed_empty_clusters(state, options.empty, distance, labels, moves);
      add_all_moves(state, points.x, moves);
    }
    settled = move_all_centroids(state, options.spherical) <= options.tol;
  }
  // After it has stopped, a matrix of a batch goes on with nothing moving.
  for (int64_t rest = iteration; rest > 0 && rest < options.max_iter; ++rest)
    records.write(rest, records.history[(rest - 1) * 3], 0.0, records.history[(rest - 1) * 3 + 2],
                  records.empty[rest - 1]);
  assign_all(points, centroids, coded, labels);
  return iteration;
}

}  // namespace

// (x [.., N, d], start [.., K, d] or none, weights [.., N] or none) -> centroids [.., K, d], labels [.., N], inertia
// [..], n_iter [..], history [.., max_iter, 3] in float64 (objective, moved, imbalance), empty [.., max_iter] in int64.
std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> kmeans(const Tensor& x, const std::optional<Tensor>& start,
                                                                  int64_t n_clusters, int64_t seed, int64_t max_iter,
                                                                  double tol, int64_t empty_rule, bool spherical,
                                                                  const std::optional<Tensor>& weights) {
  check_kmeans(x, start, n_clusters, max_iter, tol, empty_rule);
  check_weights("kmeans", x, weights);
  const Weightings weightings("kmeans", weights);
  const Matrices points(x), given(start.has_value() ? *start : x);
  const Options options{max_iter, tol, static_cast<EmptyRule>(empty_rule), spherical};
  const ScalarType dtype = accumulator_dtype(x.scalar_type());
  const int64_t n = points.rows, d = points.cols;
  Tensor centroids = empty(sizes_with(x, 2, {n_clusters, d}), dtype, x);
  Tensor labels = empty(sizes_with(x, 1, {}), ScalarType::Long, x);
  Tensor inertia = empty(sizes_with(x, 2, {}), dtype, x);
  Tensor n_iter = empty(sizes_with(x, 2, {}), ScalarType::Long, x);
  Tensor history = empty(sizes_with(x, 2, {max_iter, 3}), ScalarType::Double, x);
  Tensor empties = empty(sizes_with(x, 2, {max_iter}), ScalarType::Long, x);
  dispatch_accumulator(dtype, [&](auto zero) {
    using T = decltype(zero);
    for (int64_t b = 0; b < points.batch; ++b) {
      T* centres = static_cast<T*>(centroids.mutable_data_ptr()) + b * n_clusters * d;
      const double* weight = weightings.row(b);
      const ReadyPoints<T> ready("kmeans", points.matrix<T>(b), n, d, n_clusters * std::min<int64_t>(max_iter + 1, 10));
      if (start.has_value()) {
        const T* first = given.matrix<T>(b);
        check_finite("kmeans", "centroids", first, n_clusters, d);
        std::copy(first, first + n_clusters * d, centres);
      } else {
        std::vector<int64_t> seeds(static_cast<size_t>(n_clusters));
        draw_seeds(ready, weight, seed, b, n_clusters, seeds.data());
        for (int64_t k = 0; k < n_clusters; ++k) {
          const T* row = ready.points.x + seeds[static_cast<size_t>(k)] * d;
          std::copy(row, row + d, centres + k * d);
        }
      }
      const Records records{static_cast<double*>(history.mutable_data_ptr()) + b * max_iter * 3,
                            static_cast<int64_t*>(empties.mutable_data_ptr()) + b * max_iter};
      int64_t* label = static_cast<int64_t*>(labels.mutable_data_ptr()) + b * n;
      static_cast<int64_t*>(n_iter.mutable_data_ptr())[b] =
          lloyd(ready, weight, centres, n_clusters, options, label, records);
      const Buffer<T> distance(n);
      static_cast<T*>(inertia.mutable_data_ptr())[b] =
          static_cast<T>(all_label_distances(ready, centres, weight, label, distance.get()));
    }
  });
  return {centroids, labels, inertia, n_iter, history, empties};
}

}  // namespace deepclust::cpu

STABLE_TORCH_LIBRARY_IMPL(deepclust, CPU, library) {
  library.impl("kmeans", TORCH_BOX(&deepclust::cpu::kmeans));
}
