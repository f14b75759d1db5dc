// The lists of knn: what may still be among a row's k nearest, kept by bounds and settled by exact costs.
//
// A list takes candidates until it is full. At least k of them then lie above some upper bound t, so the k-th nearest
// is no worse than t less the list's largest slack (knn/bounds.h): that is the limit which everything kept, and every
// new candidate, must reach. Nothing that belongs to the result is ever dropped, so the result does not depend on the
// order in which candidates come. Where bounds cannot tell enough of them apart (many equal points), the k best are
// found by their exact costs. Candidates of projected rows are kept with minus their exact cost to begin with.
#pragma once

#include <algorithm>

#include "../../common/buffer.h"
#include "bounds.h"

namespace deepclust::cpu {

template <typename T>
struct Lists {
  bool squared = true;  // squared distances, or inner products
  bool bounded = true;  // whether the candidates' bounds mean anything
  int64_t k = 0, capacity = 0;
  T* uppers = nullptr;         // [lists, capacity]: the candidates' similarities, by the filter
  int32_t* indices = nullptr;  // [lists, capacity]
  int32_t* counts = nullptr;   // [lists]
  T* slacks = nullptr;         // [lists]: the largest slack among a list's candidates
  int32_t* lasts = nullptr;    // [lists]: no index beyond can be among the nearest; copies would all be compared
  T* limits = nullptr;         // [padded lists]: a dot product must reach limits[list] + offset[j]
  T* leasts = nullptr;         // [lists], of projected rows: what is kept with less is not among the nearest

  // Room to keep k and take enough new ones for a cut to be worth it; all candidates where there are few. Codes of 8
  // bits leave more in doubt.
  static int64_t room(int64_t k, int64_t candidates, Packing packing) {
    return std::min(candidates, k + std::max<int64_t>(44, packing == Packing::int8 ? k : k / 5 * 3));
  }

  void prefetch(int64_t list) const {
    __builtin_prefetch(uppers + list * capacity + counts[list], 1);
    __builtin_prefetch(indices + list * capacity + counts[list], 1);
  }
  // Point j of `others` for the list of point i, whose dot product reached the limit.
  void add(int64_t list, const PackedPoints<T>& points, int64_t i, const PackedPoints<T>& others, int64_t j,
           T dot) const {
    if (j > lasts[list]) return;
    if (counts[list] == capacity) cut(list, points, i, others);
    const int64_t at = list * capacity + counts[list]++;
    uppers[at] = dot - points.base[i] - others.base[j];
    indices[at] = static_cast<int32_t>(j);
    slacks[list] = std::max(slacks[list], others.slack[j]);
  }

  // Several of them: points first + found[h], unless it is `skip`, with dots[found[h]].
  void add_all(int64_t list, const PackedPoints<T>& points, int64_t i, const PackedPoints<T>& others, int64_t first,
               const int32_t* found, int64_t hits, const T* dots, int64_t skip) const {
    T* const upper = uppers + list * capacity;
    int32_t* const index = indices + list * capacity;
    const T* const bases = others.base;
    const T own_base = points.base[i];
    int32_t count = counts[list];
    int32_t last = lasts[list];
    T slack = slacks[list], limit = limits[list];
    for (int64_t h = 0; h < hits; ++h) {
      const int64_t j = first + found[h];
      const T dot = dots[found[h]];
      if (!(dot >= limit + others.offset[j]) || j == skip || j > last) continue;  // the limit may have risen since
      if (count == capacity) {
        counts[list] = count;
        slacks[list] = slack;
        cut(list, points, i, others);
        count = counts[list];
        slack = slacks[list];
        limit = limits[list];
        last = lasts[list];
      }
      upper[count] = dot - own_base - bases[j];
      index[count++] = static_cast<int32_t>(j);
      slack = std::max(slack, others.slack[j]);
    }
    counts[list] = count;
    slacks[list] = slack;
  }

  // Candidate j of a projected row, kept with minus its cost.
  void keep(int64_t list, const PackedPoints<T>& points, int64_t i, int32_t j, T kept) const {
    if (counts[list] == capacity) keep_nearest(list, points, i);
    if (!(kept > leasts[list] || (kept == leasts[list] && j < lasts[list]))) return;
    const int64_t at = list * capacity + counts[list]++;
    uppers[at] = kept;
    indices[at] = j;
  }

  // The k nearest of a list of projected rows.
  void keep_nearest(int64_t list, const PackedPoints<T>& points, int64_t i) const {
    struct Item {
      T kept;
      int32_t index;
    };
    const int64_t begin = list * capacity, count = counts[list];
    const Buffer<Item> items(count);
    for (int64_t c = 0; c < count; ++c) items.get()[c] = {uppers[begin + c], indices[begin + c]};
    std::nth_element(items.get(), items.get() + k - 1, items.get() + count, [](const Item& a, const Item& b) {
      return a.kept > b.kept || (a.kept == b.kept && a.index < b.index);
    });
    for (int64_t c = 0; c < k; ++c) {
      uppers[begin + c] = items.get()[c].kept;
      indices[begin + c] = items.get()[c].index;
    }
    counts[list] = static_cast<int32_t>(k);
    const Item& worst = items.get()[k - 1];
    leasts[list] = worst.kept;
    lasts[list] = worst.index;
    limits[list] = std::max(limits[list], limit_of(points, i, squared ? worst.kept / 2 : worst.kept));
  }

  // What was found by rough similarities becomes a limit; the list is empty again.
  void settle(int64_t list, const PackedPoints<T>& points, int64_t i, const PackedPoints<T>& others) const {
    const int64_t count = counts[list];
    counts[list] = 0;
    slacks[list] = 0;
    lasts[list] = std::numeric_limits<int32_t>::max();
    limits[list] = -std::numeric_limits<T>::infinity();
    if (count < k) return;
    T* const costs = uppers + list * capacity;
    costs_of(squared, points.row(i), others.rows, others.row_stride, points.depth, indices + list * capacity, count,
             costs);
    std::nth_element(costs, costs + k - 1, costs + count);
    leasts[list] = -costs[k - 1];
    limits[list] = limit_of(points, i, squared ? -costs[k - 1] / 2 : -costs[k - 1]);
  }

  // Leaves what the bounds cannot exclude; if that is nearly all, the exact costs decide.
  void cut(int64_t list, const PackedPoints<T>& points, int64_t i, const PackedPoints<T>& others) const {
    T reach = prune(list, points, i, (capacity - k) / 8);  // the limit need not be sharper
    if (counts[list] > capacity - (capacity - k) / 4) {
      const T cost = keep_exact(list, points, i, others);
      reach = std::max(reach, squared ? cost * T(-0.5) : -cost);
    }
    limits[list] = std::max(limits[list], limit_of(points, i, reach));
    T slack = 0;
    for (int64_t c = 0; c < counts[list]; ++c) slack = std::max(slack, others.slack[indices[list * capacity + c]]);
    slacks[list] = slack;
  }

  // By bounds alone, to within `spare` places; returns a similarity that the k-th nearest so far is sure to reach.
  T prune(int64_t list, const PackedPoints<T>& points, int64_t i, int64_t spare) const {
    T* const upper = uppers + list * capacity;
    const T reach = sure_similarity(points, i, reached_by(upper, counts[list], k, k + spare), slacks[list]);
    const T least = least_kept(points, i, reach, slacks[list]);
    counts[list] = static_cast<int32_t>(keep_reaching(upper, indices + list * capacity, counts[list], least));
    return reach;
  }

  // The k nearest of the list by cost, then index; returns the k-th cost.
  T keep_exact(int64_t list, const PackedPoints<T>& points, int64_t i, const PackedPoints<T>& others) const {
    T* const upper = uppers + list * capacity;
    int32_t* const index = indices + list * capacity;
    const int64_t count = counts[list];
    const Buffer<T> costs(count);
    costs_of(squared, points.row(i), others.rows, others.row_stride, points.depth, index, count, costs.get());
    struct Item {
      T cost, upper;
      int32_t index;
    };
    const Buffer<Item> items(count);
    for (int64_t c = 0; c < count; ++c) items.get()[c] = {costs.get()[c], upper[c], index[c]};
    std::nth_element(items.get(), items.get() + k - 1, items.get() + count, [](const Item& a, const Item& b) {
      return a.cost < b.cost || (a.cost == b.cost && a.index < b.index);
    });
    for (int64_t c = 0; c < k; ++c) {
      upper[c] = items.get()[c].upper;
      index[c] = items.get()[c].index;
    }
    counts[list] = static_cast<int32_t>(k);
    const Item& worst = items.get()[k - 1];
    if (squared && worst.cost == 0) lasts[list] = worst.index;  // none is nearer: only a lower index can take its place
    return worst.cost;
  }

  // The k nearest of point i's lists, in order: values [k], nearest [k]. The lists are `apart` from each other.
  void finish(int64_t list, int64_t parts, int64_t apart, const PackedPoints<T>& points, int64_t i,
              const PackedPoints<T>& others, T* values, int64_t* nearest) const {
    int64_t count = 0;
    for (int64_t part = list; part < list + parts * apart; part += apart) {
      if (bounded && counts[part] > k) {
        if (points.packing == Packing::projected)
          keep_nearest(part, points, i);
        else
          prune(part, points, i, 0);
      }
      count += counts[part];
    }
    const Buffer<int32_t> index(count);
    const Buffer<T> costs(count);
    int64_t filled = 0;
    for (int64_t part = list; part < list + parts * apart; part += apart) {
      std::copy(indices + part * capacity, indices + part * capacity + counts[part], index.get() + filled);
      filled += counts[part];
    }
    costs_of(squared, points.row(i), others.rows, others.row_stride, points.depth, index.get(), count, costs.get());
    struct Item {
      T cost;
      int32_t index;
    };
    const Buffer<Item> items(count);
    for (int64_t c = 0; c < count; ++c) items.get()[c] = {costs.get()[c], index.get()[c]};
    const auto before = [](const Item& a, const Item& b) {
      return a.cost < b.cost || (a.cost == b.cost && a.index < b.index);
    };
    if (count > k) std::nth_element(items.get(), items.get() + k, items.get() + count, before);
    std::sort(items.get(), items.get() + k, before);
    for (int64_t c = 0; c < k; ++c) {
      values[c] = squared ? items.get()[c].cost : -items.get()[c].cost;
      nearest[c] = items.get()[c].index;
    }
  }
};

}  // namespace deepclust::cpu
