// Argument checks of the raw k-means ops, shared by all backends.
#pragma once

#include <optional>

#include "checks.h"

namespace deepclust {

inline void check_points(const char* op, const Tensor& x) {
  STD_TORCH_CHECK(x.dim() >= 2 && is_floating(x), op,
                  ": 'x' must be a floating-point tensor of at least two dimensions");
  STD_TORCH_CHECK(x.size(x.dim() - 1) > 0, op, ": 'x' must have at least one column");
}

inline void check_centroids(const char* op, const Tensor& x, const Tensor& centroids) {
  STD_TORCH_CHECK(centroids.dim() == x.dim() && centroids.scalar_type() == x.scalar_type(), op,
                  ": 'centroids' must be of x's dtype and dimensions");
  for (int64_t i = 0; i < x.dim(); ++i)
    STD_TORCH_CHECK(i == x.dim() - 2 || centroids.size(i) == x.size(i), op,
                    ": 'centroids' must be of x's shape but for the number of rows");
  const int64_t clusters = centroids.size(x.dim() - 2);
  STD_TORCH_CHECK(clusters > 0 && clusters < (int64_t{1} << 31), op,
                  ": 'centroids' must have between 1 and 2^31 - 1 rows, got ", clusters);
}

inline void check_cluster_count(const char* op, const Tensor& x, int64_t n_clusters) {
  const int64_t rows = x.size(x.dim() - 2);
  STD_TORCH_CHECK(n_clusters >= 1 && n_clusters <= rows && n_clusters < (int64_t{1} << 31), op,
                  ": 'n_clusters' must be between 1 and x's ", rows, " rows, got ", n_clusters);
}

inline void check_weights(const char* op, const Tensor& x, const std::optional<Tensor>& weights) {
  if (!weights.has_value()) return;
  const auto sizes = x.sizes();
  STD_TORCH_CHECK(weights->scalar_type() == ScalarType::Double &&
                      has_sizes(*weights, std::vector<int64_t>(sizes.begin(), sizes.end() - 1)),
                  op, ": 'sample_weight' must be a float64 tensor with a weight for every row of x");
}

inline void check_kmeans(const Tensor& x, const std::optional<Tensor>& start, int64_t n_clusters, int64_t max_iter,
                         double tol, int64_t empty_rule) {
  check_points("kmeans", x);
  check_cluster_count("kmeans", x, n_clusters);
  if (start.has_value()) {
    check_centroids("kmeans", x, *start);
    STD_TORCH_CHECK(start->size(x.dim() - 2) == n_clusters, "kmeans: 'centroids' must have n_clusters=", n_clusters,
                    " rows, got ", start->size(x.dim() - 2));
  }
  DC_CHECK(max_iter >= 0, "kmeans", "max_iter", "at least 0");
  DC_CHECK(tol >= 0, "kmeans", "tol", "at least 0");
  DC_CHECK(empty_rule >= 0 && empty_rule <= 2, "kmeans", "empty", "0 (split), 1 (farthest) or 2 (keep)");
}

// What an op says about the first row of a matrix that is not finite.
inline void refuse_row(const char* op, const char* arg, int64_t row) {
  STD_TORCH_CHECK(false, op, ": '", arg, "' must be finite, got NaN or infinity in row ", row,
                  "; drop or mend such rows");
}

// The sizes of t less the last `drop`, then `added`.
inline std::vector<int64_t> sizes_with(const Tensor& t, int64_t drop, const std::vector<int64_t>& added) {
  const auto sizes = t.sizes();
  std::vector<int64_t> out(sizes.begin(), sizes.end() - drop);
  out.insert(out.end(), added.begin(), added.end());
  return out;
}

}  // namespace deepclust
