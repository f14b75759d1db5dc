// What the kernels of bank_nll_entropy share: a search's arguments, the sums that its ranges hand over, powers and
// logarithms of either type.
#pragma once

#include <cmath>

#include "../common/accumulator.h"
#include "bank_nll_entropy.h"
#include "simt.h"

namespace deepclust::cuda {

DC_DEVICE float exp_of(float x) {
  return expf(x);
}
DC_DEVICE double exp_of(double x) {
  return exp(x);
}
DC_DEVICE float log_of(float x) {
  return logf(x);
}
DC_DEVICE double log_of(double x) {
  return log(x);
}
DC_DEVICE float log1p_of(float x) {
  return log1pf(x);
}
DC_DEVICE double log1p_of(double x) {
  return log1p(x);
}

// A maximum over nothing.
template <typename T>
DC_DEVICE T lowest() {
  return -static_cast<T>(INFINITY);
}

// What to add to exponents that were relative to `from` and become relative to `to`; 0 where nothing has been summed.
template <typename T>
DC_DEVICE T shift_of(T from, T to) {
  return from == lowest<T>() ? T(0) : from - to;
}

// The queries' sets S, entry by entry: the index first, then the neighbours.
struct BankSets {
  const int64_t* index;      // [queries], -1: none
  const int64_t* neighbors;  // [queries, count], negative: none
  int64_t count;

  DC_DEVICE int64_t row(int64_t query, int64_t entry) const {
    return entry == 0 ? index[query] : neighbors[query * count + entry - 1];
  }
};

// What the ranges hand over: relative to the range's largest logit. T is the accumulator's type.
template <typename T>
struct BankParts {
  T* largest;      // [splits, queries]
  T* mass;         // [splits, queries]
  T* moment;       // [splits, queries]
  T* rows;         // [splits, queries, depth]
  T* moment_rows;  // [splits, queries, depth]
  T* set_logits;   // [queries, 1 + neighbors]: -infinity where the entry is none, or an earlier one again
};

template <typename E>
struct BankTask {
  using T = accumulator_t<E>;
  BankPlan plan;
  T scale;        // 1 / temperature
  const T* v;     // [queries, depth]
  const E* bank;  // [rows, depth]
  BankSets sets;
  BankParts<T> parts;
};

}  // namespace deepclust::cuda
