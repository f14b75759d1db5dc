#include "bank_finish_kernel.cuh"
#include "bank_nll_entropy_kernel.cuh"
#include "workspace.h"

namespace deepclust::cuda {
namespace {

template <typename T>
struct BankSpace {
  Workspace memory;
  BankParts<T> parts{};

  BankSpace(const BankPlan& plan, void* base) : memory(base) {
    const int64_t sums = plan.splits * plan.queries;
    parts.largest = memory.take<T>(sums);
    parts.mass = memory.take<T>(sums);
    parts.moment = memory.take<T>(sums);
    if (plan.weighted() > 0) parts.rows = memory.take<T>(sums * plan.depth);
    if (plan.weighted() > 1) parts.moment_rows = memory.take<T>(sums * plan.depth);
    parts.set_logits = memory.take<T>(plan.queries * (1 + plan.neighbors));
  }
};

template <typename E>
void stream(const BankTask<E>& task, Stream stream) {
  const BankPlan& plan = task.plan;
  const int64_t blocks = plan.splits * plan.panels * plan.tiles();
  if (blocks == 0) return;
  auto* const kernel = plan.weighted() == 0   ? &stream_bank<E, 0>
                       : plan.weighted() == 1 ? &stream_bank<E, 1>
                                              : &stream_bank<E, 2>;
  DC_LAUNCH(kernel, static_cast<unsigned>(blocks), kThreads, 0, stream)(task);
}

}  // namespace

std::size_t BankPlan::workspace_bytes() const {
  return dtype == DType::kDouble ? BankSpace<double>(*this, nullptr).memory.bytes()
                                 : BankSpace<float>(*this, nullptr).memory.bytes();
}

void bank_nll_entropy(const BankPlan& plan, const void* v, const void* bank, const int64_t* index,
                      const int64_t* neighbors, void* workspace, void* nll, void* entropy, void* nll_grad,
                      void* entropy_grad, void* stream_) {
  if (plan.queries == 0) return;
  dispatch_stored(plan.dtype, [&](auto zero) {
    using E = decltype(zero);
    using T = accumulator_t<E>;
    const auto on = static_cast<Stream>(stream_);
    const BankTask<E> task{plan,
                           static_cast<T>(1 / plan.temperature),
                           static_cast<const T*>(v),
                           static_cast<const E*>(bank),
                           {index, neighbors, plan.neighbors},
                           BankSpace<T>(plan, workspace).parts};
    stream(task, on);
    const int64_t entries = plan.queries * (1 + plan.neighbors);
    DC_LAUNCH(set_logits<E>, static_cast<unsigned>(ceil_div(entries, kWarps)), kThreads, 0, on)(task);
    DC_LAUNCH(finish_bank<E>, static_cast<unsigned>(plan.queries), kThreads, 0, on)
    (task, {static_cast<T*>(nll), static_cast<T*>(entropy), static_cast<T*>(nll_grad), static_cast<T*>(entropy_grad)});
  });
}

}  // namespace deepclust::cuda
