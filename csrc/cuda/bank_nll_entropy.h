// bank_nll_entropy on the GPU, as its torch side sees it: how the work is cut, and the launches.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "../common/arithmetic.h"
#include "../common/dtype.h"

namespace deepclust::cuda {

struct BankPlan {
  static constexpr int64_t kTile = 64;               // queries, and rows of the bank, of a block's tile
  static constexpr int64_t kMostBlocks = 264;        // two on each of 132 multiprocessors, all at once
  static constexpr int64_t kLeastSplit = 4 * kTile;  // rows that are worth a block, and partial sums of their own

  int64_t queries, rows, depth, neighbors;  // v [queries, depth], bank [rows, depth], neighbors [queries, neighbors]
  double temperature;
  bool nll, entropy, gradient;
  DType dtype;                 // of the bank; everything else is of its accumulator's type
  int64_t panels;              // of columns: a block sums weighted rows in one of them
  int64_t split_rows, splits;  // rows of the bank that one block streams, and how many such ranges there are

  // least_split: for tests, which need small ones.
  BankPlan(int64_t queries, int64_t rows, int64_t depth, int64_t neighbors, double temperature, bool nll, bool entropy,
           bool gradient, DType dtype, int64_t least_split = kLeastSplit)
      : queries(queries),
        rows(rows),
        depth(depth),
        neighbors(neighbors),
        temperature(temperature),
        nll(nll),
        entropy(entropy),
        gradient(gradient),
        dtype(dtype) {
    panels = gradient ? std::max<int64_t>(1, ceil_div(depth, panel())) : 1;
    const int64_t wanted = std::max<int64_t>(1, kMostBlocks / std::max<int64_t>(1, tiles() * panels));
    split_rows = std::max(least_split, round_up(ceil_div(rows, wanted), kTile));
    splits = ceil_div(rows, split_rows);
  }
  int64_t panel() const { return dtype == DType::kDouble ? 64 : 128; }
  int64_t tiles() const { return ceil_div(queries, kTile); }
  constexpr int64_t lowest_index() const { return nll ? 0 : -1; }   // -1: no row is left out of an entropy
  int weighted() const { return !gradient ? 0 : entropy ? 2 : 1; }  // how many sums of weighted rows are kept
  std::size_t workspace_bytes() const;
};

// nll, entropy [queries] and their gradients [queries, depth] with respect to v; what the plan does not ask for may be
// null. All arrays are dense. A query whose index or neighbour lies outside of what is allowed gets NaN, and
// nothing is read there.
void bank_nll_entropy(const BankPlan& plan, const void* v, const void* bank, const int64_t* index,
                      const int64_t* neighbors, void* workspace, void* nll, void* entropy, void* nll_grad,
                      void* entropy_grad, void* stream);

}  // namespace deepclust::cuda
