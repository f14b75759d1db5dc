#include "../bank/bank_nll_entropy.h"

#include <tuple>

#include "../../torch/bank_checks.h"
#include "../../torch/parallel.h"
#include "bank_indices.h"

namespace deepclust::cpu {
namespace {

constexpr int64_t kFinishQueries = 8;  // of a task

Tensor dense(const Tensor& t) {
  return t.is_contiguous() ? t : torch::stable::contiguous(t);
}

template <typename S, typename T>
void run(BankProblem<S, T>& problem, const BankResults<T>& results) {
  const BankPlan& plan = problem.plan;
  const BankWanted& wanted = problem.wanted;
  const int64_t sums = plan.chunks * plan.blocks * plan.block;
  const Buffer<T> panels(plan.blocks * plan.block * plan.depth), largest(sums);
  const Buffer<double> sum(sums), moment(sums);
  const Buffer<T> rows(wanted.gradient ? sums * plan.ld : 0), moment_rows(wanted.moment_rows() ? sums * plan.ld : 0);
  problem.panels = panels.get();
  problem.largest = largest.get();
  problem.sum = sum.get();
  problem.moment = moment.get();
  problem.rows = wanted.gradient ? rows.get() : nullptr;
  problem.moment_rows = wanted.moment_rows() ? moment_rows.get() : nullptr;

  const int64_t work = plan.queries * plan.rows * plan.depth;
  parallel_tasks(plan.blocks, plan.queries * plan.depth, [&](int64_t b) { lay_out_queries(problem, b); });
  parallel_tasks(plan.tasks(), work, [&](int64_t task) { bank_task(problem, task); });
  const int64_t pieces = ceil_div(plan.queries, kFinishQueries);
  parallel_tasks(pieces, plan.queries * plan.depth * (2 * plan.chunks + problem.neighbor_count), [&](int64_t piece) {
    const Buffer<double> scratch(2 * plan.depth);
    for (int64_t i = piece * kFinishQueries; i < std::min(plan.queries, (piece + 1) * kFinishQueries); ++i)
      finish_query(problem, i, results, scratch.get());
  });
}

}  // namespace

// (v [B, d], bank [N, d], index [B], neighbors [B, m]) -> nll [B], entropy [B] and their gradients [B, d]; what is not
// asked for comes back empty.
std::tuple<Tensor, Tensor, Tensor, Tensor> bank_nll_entropy(const Tensor& v, const Tensor& bank, const Tensor& index,
                                                            const Tensor& neighbors, double temperature, bool nll,
                                                            bool entropy, bool gradient) {
  check_bank_nll_entropy(v, bank, index, neighbors, temperature);
  const Tensor queries = dense(v), own = dense(index), right = dense(neighbors);
  check_indices("bank_nll_entropy", "index", own, bank.size(0), nll ? 0 : -1);
  if (nll) check_indices("bank_nll_entropy", "neighbors", right, bank.size(0), std::numeric_limits<int64_t>::min());

  const int64_t count = v.size(0), depth = v.size(1);
  const auto result = [&](bool asked, const std::vector<int64_t>& sizes) {
    return empty(asked ? sizes : std::vector<int64_t>{0}, v.scalar_type(), v);
  };
  Tensor nlls = result(nll, {count}), entropies = result(entropy, {count});
  Tensor nll_grad = result(nll && gradient, {count, depth}), entropy_grad = result(entropy && gradient, {count, depth});
  if (count == 0 || !(nll || entropy)) return {nlls, entropies, nll_grad, entropy_grad};

  dispatch_accumulator(v.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const auto pointer = [](Tensor& t) { return t.numel() > 0 ? static_cast<T*>(t.mutable_data_ptr()) : nullptr; };
    const BankResults<T> results{pointer(nlls), pointer(entropies), pointer(nll_grad), pointer(entropy_grad)};
    const BankWanted wanted{nll, entropy, gradient};
    dispatch_bank<T>(bank, [&](const auto& rows) {
      using S = std::remove_const_t<std::remove_pointer_t<decltype(rows.data)>>;
      BankProblem<S, T> problem{BankPlan(count, bank.size(0), depth, kLanes<T>, wanted),
                                wanted,
                                temperature,
                                static_cast<const T*>(queries.data_ptr()),
                                rows,
                                static_cast<const int64_t*>(own.data_ptr()),
                                static_cast<const int64_t*>(right.data_ptr()),
                                neighbors.size(1),
                                nullptr,
                                nullptr,
                                nullptr,
                                nullptr,
                                nullptr,
                                nullptr};
      run(problem, results);
    });
  });
  return {nlls, entropies, nll_grad, entropy_grad};
}

}  // namespace deepclust::cpu

STABLE_TORCH_LIBRARY_IMPL(deepclust, CPU, library) {
  library.impl("bank_nll_entropy", TORCH_BOX(&deepclust::cpu::bank_nll_entropy));
}
