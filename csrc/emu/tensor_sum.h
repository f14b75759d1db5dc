// How a tensor core adds, as badly as any is known to: products are exact; they and the sum so far are brought to the
// exponent of the largest, cut (towards zero) after 24 bits, added, and the result is cut again. Such sums of four
// products, without a bit more, were measured on the first tensor cores (Fasi, Higham, Mikaitis, Pranesh, PeerJ
// Computer Science 7, 2021); later ones keep one to three bits more and add up to sixteen at once.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>

namespace deepclust::emu {

inline float tensor_sum(float sum, const float (&products)[4]) {
  constexpr int kBits = 24;
  const float terms[5] = {products[0], products[1], products[2], products[3], sum};
  float plain = 0, largest = 0;
  for (const float term : terms) {
    plain += term;
    largest = std::max(largest, std::fabs(term));
  }
  if (!std::isfinite(plain) || !std::isfinite(largest) || largest == 0) return plain;
  int last = std::ilogb(largest) - (kBits - 1);  // the exponent of the last bit that is kept
  int64_t total = 0;
  for (const float term : terms) total += static_cast<int64_t>(std::scalbn(static_cast<double>(term), -last));
  for (; std::llabs(total) >> kBits != 0; ++last) total /= 2;
  return static_cast<float>(std::scalbn(static_cast<double>(total), last));
}

}  // namespace deepclust::emu
