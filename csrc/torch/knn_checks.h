// What the raw op knn asks of its arguments, on every device.
#pragma once

#include <limits>
#include <optional>
#include <string>

#include "checks.h"

namespace deepclust {

inline void check_knn(const Tensor& x, const std::optional<Tensor>& query, int64_t k, const std::string& metric) {
  DC_CHECK(x.dim() >= 2 && is_floating(x), "knn", "x", "a floating-point tensor of at least two dimensions");
  DC_CHECK(x.size(x.dim() - 1) > 0, "knn", "x", "of at least one feature");
  const int64_t points = x.size(x.dim() - 2);
  DC_CHECK(points < std::numeric_limits<int32_t>::max(), "knn", "x", "of fewer than 2^31 points");
  if (query) {
    DC_CHECK(query->dim() == x.dim() && query->scalar_type() == x.scalar_type(), "knn", "query",
             "of x's dtype and dimensions");
    for (int64_t i = 0; i < x.dim(); ++i)
      DC_CHECK(i == x.dim() - 2 || query->size(i) == x.size(i), "knn", "query",
               "of x's shape but for the number of points");
  }
  DC_CHECK(metric == "euclidean" || metric == "cosine" || metric == "inner", "knn", "metric",
           "'euclidean', 'cosine' or 'inner'");
  DC_CHECK(k >= 1 && k <= points - (query ? 0 : 1), "knn", "k", "between 1 and the number of candidates");
}

// values and indices are [.., q or n, k].
inline std::vector<int64_t> knn_sizes(const Tensor& rows, int64_t k) {
  std::vector<int64_t> sizes(rows.sizes().begin(), rows.sizes().end() - 1);
  sizes.push_back(k);
  return sizes;
}

inline void check_finite_row(const char* arg, int64_t row) {
  STD_TORCH_CHECK(arg == nullptr, "knn: '", arg == nullptr ? "" : arg, "' must be finite, got NaN or infinity in row ",
                  row, "; drop or mend such rows");
}

}  // namespace deepclust
