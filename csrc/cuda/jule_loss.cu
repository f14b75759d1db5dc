#include "jule_loss_kernel.cuh"

namespace deepclust::cuda {

std::size_t JulePlan::workspace_bytes() const {
  Workspace memory;
  const JuleSpace space(memory, *this);
  return memory.bytes();
}

void jule_loss_forward(const JulePlan& plan, const void* z, const int64_t* labels, const int64_t* seed, double gamma,
                       double margin, void* workspace, void* loss, void* z_grad, void* stream) {
  const auto on = static_cast<Stream>(stream);
  Workspace memory(workspace);
  const JuleSpace space(memory, plan);
  const auto size = static_cast<unsigned>(plan.size);
  if (size > 0) DC_LAUNCH(order_samples, (size + kWarps - 1) / kWarps, kThreads, 0, on)
  (labels, plan.size, space.samples);
  dispatch_stored(plan.dtype, [&](auto zero) {
    using E = decltype(zero);
    using T = accumulator_t<E>;
    const JuleArguments<E> all{plan,
                               space,
                               static_cast<const E*>(z),
                               labels,
                               seed,
                               static_cast<T>(gamma),
                               static_cast<T>(margin),
                               static_cast<T*>(loss),
                               static_cast<T*>(z_grad)};
    auto* const count = &count_triplets<E>;
    auto* const sum = &sum_gradients<E>;
    const std::size_t ranks = sizeof(int) * static_cast<std::size_t>(kWarps * plan.n_negatives);
    if (size > 0) DC_LAUNCH(count, size, kThreads, ranks, on)(all);
    const int64_t blocks = plan.size * ((plan.d + kThreads - 1) / kThreads);
    DC_LAUNCH(sum, static_cast<unsigned>(blocks > 0 ? blocks : 1), kThreads, 0, on)(all);
  });
}

}  // namespace deepclust::cuda
