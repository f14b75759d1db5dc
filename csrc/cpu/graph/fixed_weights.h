// Edge weights as whole numbers, so that sums of them, and of their products, have no rounding and no order: affinities
// kept up to date over a million merges are those of a computation from scratch, ties included.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace deepclust::cpu {

// Products of two sums of weights, summed over vertices.
using Wide = __int128;

// A weight w in [0, 1] becomes round(w 2^bits), and at least 1 where w is positive: 40 bits where n (n k)^2 of their
// squares stay below 2^126, as they do for all graphs that fit in memory, and fewer beyond.
inline int weight_bits(int64_t n, int64_t k) {
  const double log_n = std::log2(static_cast<double>(std::max<int64_t>(2, n)));
  const double log_k = std::log2(static_cast<double>(std::max<int64_t>(2, k)));
  const int for_sums = static_cast<int>(62 - log_n - log_k);                 // a vertex: at most n k edges
  const int for_products = static_cast<int>((126 - log_n - 2 * log_k) / 2);  // U <= sum_x in(x) out(x) <= n k k
  return std::max(1, std::min({40, for_sums, for_products}));
}

// `unit` is 2^bits.
inline int64_t fixed_weight(double weight, double unit) {
  if (!(weight > 0.0)) return 0;
  return std::max<int64_t>(1, std::llrint(weight * unit));
}

}  // namespace deepclust::cpu
