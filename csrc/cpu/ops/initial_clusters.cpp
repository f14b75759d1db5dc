#include "../graph/initial_clusters.h"
#include "../../torch/graph_checks.h"

namespace deepclust::cpu {
namespace {

// indices [n, k] -> labels [n].
Tensor components(const Tensor& indices) {
  check_neighbour_indices("initial_clusters", indices);
  const Tensor dense = torch::stable::contiguous(indices);
  const int64_t n = dense.size(0), k = dense.size(1);
  const auto* const neighbours = static_cast<const int64_t*>(dense.data_ptr());
  for (int64_t i = 0; i < n; ++i) check_neighbour("initial_clusters", neighbours[i * k], n, i);
  Tensor labels = empty({n}, ScalarType::Long, dense);
  initial_clusters(neighbours, n, k, static_cast<int64_t*>(labels.mutable_data_ptr()));
  return labels;
}

}  // namespace
}  // namespace deepclust::cpu

STABLE_TORCH_LIBRARY_IMPL(deepclust, CPU, library) {
  library.impl("initial_clusters", TORCH_BOX(&deepclust::cpu::components));
}
