// The end of bank_nll_entropy: the logits of every query's set S, and the ranges' sums with S made into the results.
//
// set_logits: a warp an entry, which also finds out whether the entry stands earlier in the list (neighbours^2 / 2
// comparisons a query). finish_bank: a block a query. Its threads share the columns, and each adds the ranges in their
// order, then the entries of S in theirs: the same bits on every run. Per query and column it reads one or two numbers
// a range: at most 17 MB in all (bank_nll_entropy.h, kMostBlocks), mostly from the second-level cache.
#pragma once

#include "bank_nll_entropy_kernel.cuh"

namespace deepclust::cuda {

// One warp an entry, queries [0, plan.queries) by entries [0, 1 + neighbours). NaN where the row may not be one.
template <typename E>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads) set_logits(const BankTask<E> task) {
  using T = accumulator_t<E>;
  const BankPlan& plan = task.plan;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp, entries = 1 + plan.neighbors;
  if (at >= plan.queries * entries) return;
  const int64_t query = at / entries, entry = at % entries, row = task.sets.row(query, entry);
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  bool again = false;
  for (int64_t e = lane; e < entry; e += kWarp) again = again || task.sets.row(query, e) == row;
  again = __any_sync(kFullMask, again);
  T logit = lowest<T>();
  if (row >= plan.rows || (entry == 0 && row < plan.lowest_index())) {
    logit = static_cast<T>(NAN);
  } else if (row >= 0 && !again) {
    T sum = 0;
    for (int64_t d = lane; d < plan.depth; d += kWarp)
      sum = multiply_add(task.v[query * plan.depth + d], static_cast<T>(read(task.bank[row * plan.depth + d])), sum);
    logit = warp_sum(sum) * task.scale;
  }
  if (lane == 0) task.parts.set_logits[at] = logit;
}

// Where the results go, and whether they are asked for.
template <typename T>
struct BankResults {
  T* nll;           // [queries]
  T* entropy;       // [queries]
  T* nll_grad;      // [queries, depth]
  T* entropy_grad;  // [queries, depth]
};

// Sums relative to `largest`.
template <typename T>
struct BankSums {
  T largest, mass, moment;
};

// A query's set as the finishing block walks over it.
template <typename E>
struct BankSet {
  using T = accumulator_t<E>;
  const BankTask<E>& task;
  int64_t query;

  // Calls f(logit, row) for the members among the entries from `first` on, in their order.
  template <typename F>
  DC_DEVICE void each(int64_t first, F f) const {
    for (int64_t entry = first; entry <= task.plan.neighbors; ++entry) {
      const T logit = task.parts.set_logits[query * (1 + task.plan.neighbors) + entry];
      if (logit != lowest<T>()) f(logit, task.sets.row(query, entry));
    }
  }
  // Adds them to sums that are relative to what lies in `sums`.
  DC_DEVICE BankSums<T> added(int64_t first, const BankSums<T>& sums) const {
    BankSums<T> all = sums;
    each(first, [&](T logit, int64_t) {
      if (logit > all.largest) all.largest = logit;
    });
    const T shift = shift_of(sums.largest, all.largest), factor = exp_of(shift);
    all.moment = factor * (sums.moment + shift * sums.mass);
    all.mass = factor * sums.mass;
    each(first, [&](T logit, int64_t) {
      const T t = logit - all.largest, e = exp_of(t);
      all.mass += e;
      all.moment += e * t;
    });
    return all;
  }
  // The members' weighted columns d: their rows, and those times t.
  DC_DEVICE void add_columns(int64_t first, T largest, int64_t d, T& sum, T& moment_sum) const {
    each(first, [&](T logit, int64_t row) {
      if (row < 0 || row >= task.plan.rows) return;  // its logit is NaN, and so is the result
      const T t = logit - largest, e = exp_of(t), value = read(task.bank[row * task.plan.depth + d]);
      sum = multiply_add(e, value, sum);
      moment_sum = multiply_add(e * t, value, moment_sum);
    });
  }
};

// One block a query.
template <typename E>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads, 2)
    finish_bank(const BankTask<E> task, const BankResults<accumulator_t<E>> results) {
  using T = accumulator_t<E>;
  const BankPlan& plan = task.plan;
  const int64_t query = blockIdx.x;
  const int splits = static_cast<int>(plan.splits);
  DC_SHARED(T, largest, BankPlan::kMostBlocks);
  DC_SHARED(T, shift, BankPlan::kMostBlocks);
  DC_SHARED(T, factor, BankPlan::kMostBlocks);
  DC_SHARED(T, mass, BankPlan::kMostBlocks);
  DC_SHARED(T, moment, BankPlan::kMostBlocks);
  for (int s = static_cast<int>(threadIdx.x); s < splits; s += kThreads)
    largest[s] = task.parts.largest[s * plan.queries + query];
  DC_SYNC();
  BankSums<T> rest{lowest<T>(), T(0), T(0)};  // all rows outside of S
  for (int s = 0; s < splits; ++s)
    if (largest[s] > rest.largest) rest.largest = largest[s];
  for (int s = static_cast<int>(threadIdx.x); s < splits; s += kThreads) {
    const int64_t at = s * plan.queries + query;
    shift[s] = shift_of(largest[s], rest.largest);
    factor[s] = exp_of(shift[s]);
    mass[s] = factor[s] * task.parts.mass[at];
    moment[s] = factor[s] * (task.parts.moment[at] + shift[s] * task.parts.mass[at]);
  }
  DC_SYNC();
  for (int s = 0; s < splits; ++s) {
    rest.mass += mass[s];
    rest.moment += moment[s];
  }

  const BankSet<E> set{task, query};
  const bool none = rest.mass == T(0);
  BankSums<T> chosen{}, unlike{};  // S; all rows but the index
  T share = 0;                     // of R in the mass of all rows
  if (plan.nll) {
    chosen = set.added(0, {lowest<T>(), T(0), T(0)});
    const T x = (rest.largest - chosen.largest) + (log_of(rest.mass) - log_of(chosen.mass));
    // Without R both are 0, or NaN where the logits are.
    share = none ? chosen.mass * T(0) : T(1) / (T(1) + exp_of(-x));
    if (threadIdx.x == 0) results.nll[query] = none ? share : x > T(0) ? x + log1p_of(exp_of(-x)) : log1p_of(exp_of(x));
  }
  if (plan.entropy) {
    unlike = set.added(1, rest);
    const int64_t index = task.sets.row(query, 0);
    if (index < plan.lowest_index() || index >= plan.rows) unlike.mass = static_cast<T>(NAN);
    if (threadIdx.x == 0)
      results.entropy[query] = unlike.mass == T(0) ? T(0) : log_of(unlike.mass) - unlike.moment / unlike.mass;
  }
  if (!plan.gradient) return;

  for (int64_t d = threadIdx.x; d < plan.depth; d += kThreads) {
    T rows = 0, moment_rows = 0;
    DC_UNROLL_BY(8)
    for (int s = 0; s < splits; ++s) {
      const int64_t at = (s * plan.queries + query) * plan.depth + d;
      const T part = task.parts.rows[at];
      rows = multiply_add(factor[s], part, rows);
      if (plan.entropy)
        moment_rows = multiply_add(factor[s], task.parts.moment_rows[at] + shift[s] * part, moment_rows);
    }
    if (plan.nll) {
      T set_rows = 0, unused = 0;
      set.add_columns(0, chosen.largest, d, set_rows, unused);
      const T mean = none ? T(0) : rows / rest.mass;
      results.nll_grad[query * plan.depth + d] = task.scale * share * (mean - set_rows / chosen.mass);
    }
    if (plan.entropy) {
      const T change = shift_of(rest.largest, unlike.largest), rescale = exp_of(change);
      moment_rows = rescale * (moment_rows + change * rows);
      rows *= rescale;
      set.add_columns(1, unlike.largest, d, rows, moment_rows);
      const T gradient = (unlike.moment / unlike.mass * rows - moment_rows) / unlike.mass;
      results.entropy_grad[query * plan.depth + d] = unlike.mass == T(0) ? T(0) : task.scale * gradient;
    }
  }
}

}  // namespace deepclust::cuda
