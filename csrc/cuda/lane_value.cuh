// A pair's value by eight lanes: few pairs, far apart in memory, where row_tile() has many from few rows.
#pragma once

#include "row_tile.cuh"

namespace deepclust::cuda {

inline constexpr int kValueLanes = 8;

// v(a, b) in all eight lanes, with the bits of row_tile(): a slab of the depth to a lane, and the slabs' sums in order.
// All lanes of a warp must call it with the same depth.
template <RowValue kValue, typename A, typename B>
DC_DEVICE accumulator_t<A> value_by_lanes(const A* a, const B* b, int64_t depth) {
  using T = accumulator_t<A>;
  constexpr int kSlab = 16;
  const int lane = static_cast<int>(threadIdx.x) % kValueLanes;
  T value = 0;
  for (int64_t first = 0; first < depth; first += kValueLanes * kSlab) {
    const int64_t k = first + lane * kSlab, left = depth - k;
    const int steps = left < 0 ? 0 : left < kSlab ? static_cast<int>(left) : kSlab;
    T sum = 0;
    for (int d = 0; d < steps; ++d) {
      if constexpr (kValue == RowValue::kSquaredDistance) {
        const T difference = read(a[k + d]) - read(b[k + d]);
        sum = multiply_add(difference, difference, sum);
      } else {
        sum = multiply_add(read(a[k + d]), read(b[k + d]), sum);
      }
    }
    DC_UNROLL
    for (int other = 0; other < kValueLanes; ++other) {
      const T part = __shfl_sync(kFullMask, sum, other, kValueLanes);
      if (first + other * kSlab < depth) value += part;
    }
  }
  return value;
}

}  // namespace deepclust::cuda
