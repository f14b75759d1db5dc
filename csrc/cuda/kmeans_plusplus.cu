#include "kmeans_plusplus_kernel.cuh"

namespace deepclust::cuda {
namespace {

template <typename T>
struct SeedingMemory {
  Workspace memory;
  SeedingSpace<T> space;

  SeedingMemory(const SeedingPlan& plan, void* base) : memory(base), space(memory, plan) {}
};

}  // namespace

std::size_t SeedingPlan::workspace_bytes() const {
  return dtype == DType::kDouble ? SeedingMemory<double>(*this, nullptr).memory.bytes()
                                 : SeedingMemory<float>(*this, nullptr).memory.bytes();
}

int64_t SeedingPlan::rounds() const {
  int64_t rounds = 1;
  for (int64_t known = 1; known < clusters; known *= 2) ++rounds;
  return rounds;
}

void start_seeding(const SeedingPlan& plan, int64_t seed, void* workspace, RowFlag* unfinished, void* stream) {
  dispatch_stored(plan.dtype, [&](auto zero) {
    using T = accumulator_t<decltype(zero)>;
    const SeedingMemory<T> memory(plan, workspace);
    auto* const start = &start_states<T>;
    const auto on = static_cast<Stream>(stream);
    DC_LAUNCH(start, blocks_over(plan.batch * plan.n), kThreads, 0, on)(plan, memory.space, seed, unfinished);
    if (plan.weights == nullptr || plan.batch == 0) return;
    auto* const sum = &sum_distances<T>;
    const int64_t* const everything = nullptr;
    DC_LAUNCH(sum, static_cast<unsigned>(plan.batch * plan.blocks), kThreads, 0, on)
    (memory.space.squared, plan.weights, plan.n, plan.blocks, everything, memory.space.sums);
  });
}

void draw_rounds(const SeedingPlan& plan, const void* x, int64_t rounds, void* workspace, int64_t* seeds,
                 void* centroids, RowFlag* unfinished, void* stream) {
  if (plan.batch == 0) return;
  const auto on = static_cast<Stream>(stream);
  dispatch_stored(plan.dtype, [&](auto zero) {
    using E = decltype(zero);
    using T = accumulator_t<E>;
    const SeedingMemory<T> memory(plan, workspace);
    const SeedingSpace<T>& space = memory.space;
    const SeedingDraws<E> draws{plan, space, static_cast<const E*>(x), seeds, static_cast<T*>(centroids), unfinished};
    const Search lower{x, centroids, nullptr, nullptr, space.squared, nullptr, space.range, nullptr};
    auto* const draw = &draw_seeds<E>;
    auto* const sum = &sum_distances<T>;
    for (int64_t round = 0; round < rounds; ++round) {
      DC_LAUNCH(draw, static_cast<unsigned>(plan.batch), kThreads, 0, on)(draws);
      if (plan.clusters == 1) return;
      search_centroids(plan, lower, stream);
      DC_LAUNCH(sum, static_cast<unsigned>(plan.batch * plan.blocks), kThreads, 0, on)
      (space.squared, plan.weights, plan.n, plan.blocks, space.range, space.sums);
    }
  });
}

}  // namespace deepclust::cuda
