#include "affinity_weights_kernel.cuh"

namespace deepclust::cuda {
namespace {

template <typename T>
void run(const AffinityPlan& plan, const void* distances, double a, double* sums, void* weights, void* sigma2,
         int64_t* bad, Stream on) {
  const auto* const d = static_cast<const T*>(distances);
  const auto blocks = static_cast<unsigned>(plan.chunks);
  auto* const sum = &sum_chunks<T>;
  auto* const write = &weigh<T>;
  DC_LAUNCH(sum, blocks, kThreads, 0, on)(plan, d, sums);
  DC_LAUNCH(write, blocks, kThreads, 0, on)(plan, d, a, sums, static_cast<T*>(weights), static_cast<T*>(sigma2), bad);
}

}  // namespace

void affinity_weights(const AffinityPlan& plan, const void* distances, double a, void* workspace, void* weights,
                      void* sigma2, int64_t* bad, void* stream) {
  auto* const sums = static_cast<double*>(workspace);
  const auto on = static_cast<Stream>(stream);
  if (plan.dtype == DType::kDouble)
    run<double>(plan, distances, a, sums, weights, sigma2, bad, on);
  else
    run<float>(plan, distances, a, sums, weights, sigma2, bad, on);
}

}  // namespace deepclust::cuda
