// k-means++ over a batch on the side of libtorch, shared by kmeans and kmeans_plusplus.
#pragma once

#include <optional>

#include "../torch/cuda_arguments.h"
#include "kmeans_plusplus.h"

namespace deepclust::cuda {

inline std::optional<Tensor> dense(const std::optional<Tensor>& t) {
  return t.has_value() ? std::optional<Tensor>(dense(*t)) : std::nullopt;
}
inline const double* weights_of(const std::optional<Tensor>& weights) {
  return weights.has_value() ? static_cast<const double*>(weights->data_ptr()) : nullptr;
}

// x [batch, n, d], dense and finite -> seeds [batch, clusters] in int64, and x's rows there, in the accumulator's
// dtype. It waits for the device once, or once more for every round that rejected draws have asked for.
inline void draw_all_seeds(const SeedingPlan& plan, const Tensor& x, int64_t seed, const Tensor& seeds,
                           const Tensor& centroids, void* stream) {
  if (plan.batch == 0) return;
  const Tensor memory = workspace(plan.workspace_bytes(), x), unfinished = empty({1}, ScalarType::Long, x);
  auto* const flag = static_cast<RowFlag*>(unfinished.mutable_data_ptr());
  start_seeding(plan, seed, memory.mutable_data_ptr(), flag, stream);
  for (int64_t rounds = plan.rounds();; rounds = 1) {
    draw_rounds(plan, x.data_ptr(), rounds, memory.mutable_data_ptr(), static_cast<int64_t*>(seeds.mutable_data_ptr()),
                centroids.mutable_data_ptr(), flag, stream);
    check_launch("kmeans_plusplus");
    if (to_host(unfinished)[0] == 0) return;
  }
}

}  // namespace deepclust::cuda
