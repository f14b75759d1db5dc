// The type a kernel accumulates in: double for double, float for everything else.
#pragma once

namespace deepclust {

template <typename T>
struct AccumulatorOf {
  using type = float;
};
template <>
struct AccumulatorOf<double> {
  using type = double;
};
template <typename T>
using accumulator_t = typename AccumulatorOf<T>::type;

}  // namespace deepclust
