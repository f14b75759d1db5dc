#include <cmath>
#include <optional>
#include <tuple>

#include "../../torch/graph_checks.h"
#include "../graph/agglomerate.h"

namespace deepclust::cpu {
namespace {

constexpr const char* kOp = "agglomerate";

Tensor as_double(const Tensor& t) {
  return torch::stable::contiguous(t.scalar_type() == ScalarType::Double ? t
                                                                         : torch::stable::to(t, ScalarType::Double));
}

void check_values(const int64_t* indices, const double* weights, const int64_t* labels, int64_t n, int64_t k,
                  int64_t m) {
  std::vector<char> has_members(static_cast<std::size_t>(m));
  for (int64_t i = 0; i < n; ++i) {
    STD_TORCH_CHECK(labels[i] >= 0 && labels[i] < m, kOp, ": 'labels' must be between 0 and ", m - 1, ", got ",
                    labels[i], " for point ", i);
    has_members[labels[i]] = 1;
    for (int64_t e = i * k; e < (i + 1) * k; ++e) {
      check_neighbour(kOp, indices[e], n, i);
      STD_TORCH_CHECK(weights[e] >= 0.0 && weights[e] <= 1.0, kOp, ": 'weights' must be between 0 and 1, got ",
                      weights[e], " in row ", i);
    }
  }
  for (int64_t c = 0; c < m; ++c)
    STD_TORCH_CHECK(has_members[c], kOp, ": 'labels' must use every number below ", m, ", got none of ", c);
}

// (indices and weights [n, k], labels [n] within [0, n_initial), x [n, d]) -> children [n_initial - 1, 2] and
// affinities [n_initial - 1], of which the first n_merges count.
std::tuple<Tensor, Tensor, Tensor> merge_tree(const Tensor& indices, const Tensor& weights, const Tensor& labels,
                                              int64_t n_initial, int64_t n_clusters, int64_t kc, double lam,
                                              int64_t update, const std::optional<Tensor>& x) {
  check_neighbour_indices(kOp, indices);
  const int64_t n = indices.size(0), k = indices.size(1);
  DC_CHECK(has_sizes(weights, {n, k}) && is_floating(weights), "agglomerate", "weights",
           "a floating-point tensor of the shape of 'indices'");
  DC_CHECK(has_sizes(labels, {n}) && labels.scalar_type() == ScalarType::Long, "agglomerate", "labels",
           "an int64 tensor (n,)");
  DC_CHECK(n_initial >= 0 && n_initial <= n, "agglomerate", "n_initial", "between 0 and n");
  DC_CHECK(n_clusters >= 1, "agglomerate", "n_clusters", "at least 1");
  DC_CHECK(kc >= 1, "agglomerate", "kc", "at least 1");
  DC_CHECK(lam >= 0.0 && std::isfinite(lam), "agglomerate", "lam", "finite and at least 0");
  DC_CHECK(update >= 0 && update <= 2, "agglomerate", "update", "0 (exact), 1 (slide) or 2 (sum)");
  if (x.has_value())
    DC_CHECK(x->dim() == 2 && x->size(0) == n &&
                 (x->scalar_type() == ScalarType::Float || x->scalar_type() == ScalarType::Double),
             "agglomerate", "x", "a float32 or float64 matrix of n rows");

  const Tensor edges = torch::stable::contiguous(indices), start = torch::stable::contiguous(labels);
  const Tensor values = as_double(weights);
  const std::optional<Tensor> rows = x.has_value() ? std::optional(torch::stable::contiguous(*x)) : std::nullopt;
  const auto* const first = static_cast<const int64_t*>(start.data_ptr());
  const KnnGraph graph{static_cast<const int64_t*>(edges.data_ptr()), static_cast<const double*>(values.data_ptr()), n,
                       k};
  check_values(graph.indices, graph.weights, first, n, k, n_initial);

  const int64_t most = std::max<int64_t>(n_initial - 1, 0);
  Tensor children = torch::stable::full({most, 2}, -1, ScalarType::Long, std::nullopt, indices.device());
  Tensor affinities = torch::stable::full({most}, 0.0, ScalarType::Double, std::nullopt, indices.device());
  Tensor count = torch::stable::full({}, 0, ScalarType::Long, std::nullopt, indices.device());
  Points points{nullptr, 0, false};
  if (rows.has_value()) points = {rows->data_ptr(), rows->size(1), rows->scalar_type() == ScalarType::Double};
  if (n_initial > n_clusters)
    *static_cast<int64_t*>(count.mutable_data_ptr()) = agglomerate(
        graph, first, n_initial, n_clusters, {kc, lam, static_cast<Update>(update)}, points,
        {static_cast<int64_t*>(children.mutable_data_ptr()), static_cast<double*>(affinities.mutable_data_ptr())});
  return {children, affinities, count};
}

}  // namespace
}  // namespace deepclust::cpu

STABLE_TORCH_LIBRARY_IMPL(deepclust, CPU, library) {
  library.impl("agglomerate", TORCH_BOX(&deepclust::cpu::merge_tree));
}
