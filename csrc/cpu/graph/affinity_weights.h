// w = exp(-d / sigma2) over the squared distances of a k-NN graph, sigma2 = a times their mean.
//
// The mean is a double, summed in index order by one thread: n k additions in a chain, about 1 ns each, hidden behind
// the search that made the distances. Traffic: the distances twice, the weights once.
#pragma once

#include <cmath>
#include <cstdint>

namespace deepclust::cpu {

// a times the mean of `count` squared distances, 0 where there are none; NaN if one is negative or no number.
template <typename T>
double affinity_scale(const T* distances, int64_t count, double a) {
  double sum = 0.0;
  for (int64_t i = 0; i < count; ++i) {
    const double d = static_cast<double>(distances[i]);
    if (!(d >= 0.0)) return std::nan("");
    sum += d;
  }
  return count == 0 ? 0.0 : a * (sum / static_cast<double>(count));
}

// Weights of distances [begin, end). Where sigma2 is 0 all points are equal, and as near as can be.
template <typename T>
void affinity_weights(const T* distances, int64_t begin, int64_t end, double sigma2, T* weights) {
  for (int64_t i = begin; i < end; ++i)
    weights[i] = sigma2 == 0.0 ? T(1) : std::exp(static_cast<T>(-static_cast<double>(distances[i]) / sigma2));
}

}  // namespace deepclust::cpu
