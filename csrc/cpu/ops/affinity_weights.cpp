#include <algorithm>
#include <cmath>
#include <tuple>

#include "../../common/arithmetic.h"
#include "../../torch/dispatch.h"
#include "../../torch/graph_checks.h"
#include "../../torch/parallel.h"
#include "../graph/affinity_weights.h"

namespace deepclust::cpu {
namespace {

constexpr int64_t kTask = 1 << 14;  // weights
constexpr int64_t kCost = 32;       // of one, in multiply-adds

// squared_distances [n, k] -> weights [n, k] and sigma2 [], in their dtype.
std::tuple<Tensor, Tensor> weights_of(const Tensor& squared_distances, double a) {
  check_affinity_weights(squared_distances, a);
  const ScalarType dtype = squared_distances.scalar_type();
  const Tensor distances = torch::stable::contiguous(squared_distances);
  const int64_t count = distances.numel();
  Tensor weights = empty({distances.size(0), distances.size(1)}, dtype, distances);
  Tensor scale = empty({}, dtype, distances);
  dispatch_accumulator(dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* const d = static_cast<const T*>(distances.data_ptr());
    const double sigma2 = affinity_scale(d, count, a);
    check_affinity_scale(std::isfinite(sigma2));
    *static_cast<T*>(scale.mutable_data_ptr()) = static_cast<T>(sigma2);
    T* const w = static_cast<T*>(weights.mutable_data_ptr());
    parallel_tasks(ceil_div(count, kTask), count * kCost, [&](int64_t task) {
      affinity_weights(d, task * kTask, std::min(count, (task + 1) * kTask), sigma2, w);
    });
  });
  return {weights, scale};
}

}  // namespace
}  // namespace deepclust::cpu

STABLE_TORCH_LIBRARY_IMPL(deepclust, CPU, library) {
  library.impl("affinity_weights", TORCH_BOX(&deepclust::cpu::weights_of));
}
