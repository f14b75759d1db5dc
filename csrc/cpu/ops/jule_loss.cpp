#include "../jule/jule_loss.h"

#include <tuple>

#include "../../common/buffer.h"
#include "../../torch/jule_loss_checks.h"
#include "../../torch/parallel.h"

namespace deepclust::cpu {
namespace {

constexpr int64_t kReducedAtOnce = 4096;  // elements of the gradient a task

template <typename T>
void run(const JuleProblem<T>& problem, T* loss, T* z_grad) {
  const int64_t elements = problem.size * problem.d, tasks = problem.tasks();
  if (problem.triplets() == 0) {
    *loss = T(0);
    std::memset(z_grad, 0, sizeof(T) * static_cast<size_t>(elements));
    return;
  }
  const Buffer<T> gradients(tasks * elements);
  const Buffer<double> sums(tasks);
  parallel_tasks(tasks, problem.work(), [&](int64_t task) {
    sums.get()[task] = anchor_task(problem, task, gradients.get() + task * elements);
  });
  double sum = 0.0;
  for (int64_t task = 0; task < tasks; ++task) sum += sums.get()[task];
  const auto triplets = static_cast<double>(problem.triplets());
  *loss = static_cast<T>(sum / triplets);
  const T factor = static_cast<T>(2.0 / triplets);
  parallel_tasks(ceil_div(elements, kReducedAtOnce), tasks * elements, [&](int64_t block) {
    const int64_t begin = block * kReducedAtOnce, end = std::min(elements, begin + kReducedAtOnce);
    T* __restrict__ total = gradients.get();
    for (int64_t task = 1; task < tasks; ++task) {
      const T* __restrict__ part = gradients.get() + task * elements;
      for (int64_t i = begin; i < end; ++i) total[i] += part[i];
    }
    for (int64_t i = begin; i < end; ++i) z_grad[i] = factor * total[i];
  });
}

}  // namespace

// (z [B, d], labels [B], seed []) -> loss [], dL/dz [B, d], both in the accumulator's dtype.
std::tuple<Tensor, Tensor> jule_loss(const Tensor& z, const Tensor& labels, const Tensor& seed, double gamma,
                                     double margin, int64_t n_negatives) {
  check_jule_loss(z, labels, seed, gamma, margin, n_negatives);
  const ScalarType dtype = accumulator_dtype(z.scalar_type());
  Tensor loss = empty({}, dtype, z), z_grad = empty({z.size(0), z.size(1)}, dtype, z);
  const Tensor rows = torch::stable::contiguous(as_accumulator(z)), label = torch::stable::contiguous(labels);
  dispatch_accumulator(dtype, [&](auto zero) {
    using T = decltype(zero);
    const JuleProblem<T> problem{static_cast<const T*>(rows.data_ptr()),
                                 z.size(0),
                                 z.size(1),
                                 gamma,
                                 margin,
                                 *static_cast<const int64_t*>(seed.data_ptr()),
                                 n_negatives,
                                 LabelOrder(static_cast<const int64_t*>(label.data_ptr()), z.size(0))};
    run(problem, static_cast<T*>(loss.mutable_data_ptr()), static_cast<T*>(z_grad.mutable_data_ptr()));
  });
  return {loss, z_grad};
}

}  // namespace deepclust::cpu

STABLE_TORCH_LIBRARY_IMPL(deepclust, CPU, library) {
  library.impl("jule_loss", TORCH_BOX(&deepclust::cpu::jule_loss));
}
