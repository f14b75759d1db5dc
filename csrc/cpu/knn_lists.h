// The lists of knn: what may still be among a row's k nearest, kept by bounds and settled by exact costs.
//
// A list takes candidates until it is full. It is then cut to those whose upper bound reaches the k-th best lower
// bound, which from then on is the limit that a new candidate must reach. Nothing that belongs to the result is ever
// dropped, so the result does not depend on the order in which candidates come. Where bounds cannot tell enough of them
// apart (many equal points), the k best are found by their exact costs.
#pragma once

#include <algorithm>
#include <limits>
#include <utility>

#include "../common/buffer.h"
#include "knn_lanes.h"

namespace deepclust::cpu {

// Points as both steps read them: whole rows for the exact costs, packed ones and bounds for the filter.
template <typename T>
struct Points {
  const T* rows = nullptr;  // [count, depth], rows row_stride apart
  int64_t count = 0, depth = 0, row_stride = 0;
  PackedRows<T> packed;
  T* offset = nullptr;  // [padded]: the similarity of (i, j) is at most dot(i, j) - offset[i] - offset[j]
  T* slack = nullptr;   // [padded]: and at least that less slack[i] + slack[j]

  const T* row(int64_t i) const { return rows + i * row_stride; }
  // What comes after the last row: the filter reads whole panels.
  static int64_t padded(int64_t count) { return round_up(count, PackedRows<T>::kPanel); }
};

template <typename T>
DC_INLINE bool nearer(T cost, int32_t index, T other_cost, int32_t other_index) {
  return cost < other_cost || (cost == other_cost && index < other_index);
}

// Brings the k largest lower bounds to the front and returns the k-th. Without a branch on the data.
template <typename T>
T select_largest(Candidate<T>* items, int64_t count, int64_t k) {
  for (;;) {
    const T a = items[0].lower, b = items[count / 2].lower, c = items[count - 1].lower;
    const T pivot = std::max(std::min(a, b), std::min(std::max(a, b), c));
    const auto partition = [&](auto before) {
      int64_t front = 0;
      for (int64_t i = 0; i < count; ++i) {
        const Candidate<T> item = items[i];
        items[i] = items[front];
        items[front] = item;
        front += before(item.lower) ? 1 : 0;
      }
      return front;
    };
    const int64_t above = partition([&](T value) { return value > pivot; });
    if (k <= above) {
      count = above;
      continue;
    }
    items += above;
    count -= above;
    k -= above;
    const int64_t equal = partition([&](T value) { return value == pivot; });
    if (k <= equal) return pivot;
    items += equal;
    count -= equal;
    k -= equal;
  }
}

template <typename T>
struct Lists {
  bool squared = true;  // squared distances, or inner products
  bool bounded = true;  // whether the candidates' bounds mean anything
  int64_t k = 0, capacity = 0;
  Candidate<T>* candidates = nullptr;  // [lists, capacity]
  int32_t* counts = nullptr;           // [lists]
  T* limits = nullptr;                 // [padded lists]: a dot product must reach limits[list] + offset[j]

  // Room to keep k and take as many again as a cut is worth; all candidates where there are few.
  static int64_t room(int64_t k, int64_t candidates) {
    return std::min(candidates, k + std::max<int64_t>(44, k / 5 * 3));
  }
  Candidate<T>* of(int64_t list) const { return candidates + list * capacity; }

  void add(int64_t list, const Points<T>& points, int64_t i, const Points<T>& others, int64_t j, T dot) const {
    if (counts[list] == capacity) cut(list, points, i, others);
    const T lower = dot - points.offset[i] - others.offset[j] - (points.slack[i] + others.slack[j]);
    of(list)[counts[list]++] = {lower, static_cast<int32_t>(j)};
  }

  // Leaves what the bounds cannot exclude; at most half of the free room is then taken, or the exact costs decide.
  void cut(int64_t list, const Points<T>& points, int64_t i, const Points<T>& others) const {
    T reach = prune(list, points, i, others);
    if (counts[list] > k + (capacity - k) / 2) {
      const T cost = keep_exact(list, points, i, others);
      reach = std::max(reach, squared ? cost * T(-0.5) : -cost);
    }
    limits[list] = std::max(limits[list], reach + points.offset[i]);
  }

  // By bounds alone; returns the k-th best lower bound.
  T prune(int64_t list, const Points<T>& points, int64_t i, const Points<T>& others) const {
    Candidate<T>* items = of(list);
    const T reach = select_largest(items, counts[list], k);
    int64_t kept = k;
    for (int64_t c = k; c < counts[list]; ++c) {
      const Candidate<T> item = items[c];
      items[kept] = item;
      kept += item.lower + (points.slack[i] + others.slack[item.index]) >= reach ? 1 : 0;
    }
    counts[list] = static_cast<int32_t>(kept);
    return reach;
  }

  // The k nearest of the list by cost, then index; returns the k-th cost.
  T keep_exact(int64_t list, const Points<T>& points, int64_t i, const Points<T>& others) const {
    Candidate<T>* items = of(list);
    const int64_t count = counts[list];
    const Buffer<T> costs(count);
    const Buffer<int32_t> order(count);
    costs_of(squared, points.row(i), others.rows, others.row_stride, points.depth, items, count, costs.get());
    for (int64_t c = 0; c < count; ++c) order.get()[c] = static_cast<int32_t>(c);
    std::nth_element(order.get(), order.get() + k - 1, order.get() + count, [&](int32_t a, int32_t b) {
      return nearer(costs.get()[a], items[a].index, costs.get()[b], items[b].index);
    });
    const T cost = costs.get()[order.get()[k - 1]];
    const Buffer<Candidate<T>> kept(k);
    for (int64_t c = 0; c < k; ++c) kept.get()[c] = items[order.get()[c]];
    std::copy(kept.get(), kept.get() + k, items);
    counts[list] = static_cast<int32_t>(k);
    return cost;
  }

  // The k nearest of point i's lists, in order: values [k], indices [k]. The lists are `apart` from each other.
  void finish(int64_t list, int64_t parts, int64_t apart, const Points<T>& points, int64_t i, const Points<T>& others,
              T* values, int64_t* indices) const {
    int64_t count = 0;
    for (int64_t part = 0; part < parts; ++part) {
      if (bounded && counts[list + part * apart] > k) prune(list + part * apart, points, i, others);
      count += counts[list + part * apart];
    }
    const Buffer<Candidate<T>> items(count);
    const Buffer<T> costs(count);
    int64_t filled = 0;
    for (int64_t part = 0; part < parts; ++part) {
      const Candidate<T>* from = of(list + part * apart);
      std::copy(from, from + counts[list + part * apart], items.get() + filled);
      filled += counts[list + part * apart];
    }
    costs_of(squared, points.row(i), others.rows, others.row_stride, points.depth, items.get(), count, costs.get());
    for (int64_t c = 0; c < count; ++c) items.get()[c].lower = costs.get()[c];
    const auto before = [](const Candidate<T>& a, const Candidate<T>& b) {
      return nearer(a.lower, a.index, b.lower, b.index);
    };
    if (count > k) std::nth_element(items.get(), items.get() + k, items.get() + count, before);
    std::sort(items.get(), items.get() + k, before);
    for (int64_t c = 0; c < k; ++c) {
      values[c] = squared ? items.get()[c].lower : -items.get()[c].lower;
      indices[c] = items.get()[c].index;
    }
  }
};

}  // namespace deepclust::cpu
