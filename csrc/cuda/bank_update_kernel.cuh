// The memory bank's update on the GPU: row y_i <- normalise(momentum row + (1 - momentum) feature_i), i in batch order.
//
// A warp for every place of the batch. The warp of an index's first place owns that row: it walks through the places
// that follow, 32 at a time, and applies those with the same index one after another, so that duplicates act in batch
// order; the other warps of the index leave at once. A row is written, rounded to the bank's type, once for each
// application, as if the op had been called for every place alone. A lane holds the same columns throughout, so nothing
// passes between threads but the largest entry and the sum of squares. In double, and by the largest entry first, as on
// the CPU: squares neither over- nor underflow.
//
// At B = d = 128 it moves 64 KB of features and 64 KB of rows to and fro, and compares 16 thousand indices: launch
// latency bounds it, by far, even where a GPU has few units for double. The comparisons are B^2, 8 bytes each, from the
// second-level cache: 65,536 places would take 4 billion, some 10 ms.
#pragma once

#include "../common/half.h"
#include "bank_update.h"
#include "reduce.cuh"

namespace deepclust::cuda {

template <typename E>
DC_DEVICE void write_double(double value, E& out) {
  if constexpr (sizeof(E) == sizeof(double))
    out = value;
  else
    write(static_cast<float>(value), out);
}

// One warp a place of the batch. E is the bank's type, F the features'.
template <typename E, typename F>
DC_GLOBAL void DC_LAUNCH_BOUNDS(kThreads, 2)
    update_rows(const BankUpdate update, E* bank, const int64_t* index, const F* features) {
  const int64_t place = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp, depth = update.depth;
  if (place >= update.features) return;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t row = index[place];
  if (row < 0 || row >= update.rows) return;
  bool earlier = false;
  for (int64_t i = lane; i < place; i += kWarp) earlier = earlier || index[i] == row;
  if (__any_sync(kFullMask, earlier)) return;

  E* const stored = bank + row * update.row_stride;
  for (int64_t begin = place; begin < update.features; begin += kWarp) {
    unsigned same = __ballot_sync(kFullMask, begin + lane < update.features && index[begin + lane] == row);
    for (; same != 0; same &= same - 1) {
      const F* const feature = features + (begin + __ffs(static_cast<int>(same)) - 1) * depth;
      const auto mixed = [&](int64_t d) {
        return update.momentum * static_cast<double>(read(stored[d * update.col_stride])) +
               (1 - update.momentum) * static_cast<double>(feature[d]);
      };
      double largest = 0, squares = 0;
      for (int64_t d = lane; d < depth; d += kWarp) largest = fmax(largest, fabs(mixed(d)));
      DC_UNROLL
      for (int step = kWarp / 2; step > 0; step /= 2)
        largest = fmax(largest, __shfl_xor_sync(kFullMask, largest, step));
      if (largest == 0) largest = 1;  // a zero row stays zero; one of NaN alone stays NaN
      for (int64_t d = lane; d < depth; d += kWarp) {
        const double part = mixed(d) / largest;
        squares += part * part;
      }
      squares = warp_sum(squares);
      const double length = squares == 0 ? 1 : sqrt(squares);
      for (int64_t d = lane; d < depth; d += kWarp)
        write_double(mixed(d) / largest / length, stored[d * update.col_stride]);
    }
  }
}

}  // namespace deepclust::cuda
