// Random numbers that are a function of a key and a counter: no state to share between threads or to carry along.
#pragma once

#include <cstdint>

#include "macros.h"

namespace deepclust {

// A bijection of 64-bit words that flips about half of the bits for every bit changed (Stafford's "Mix13" constants).
DC_HOST_DEVICE uint64_t mix_bits(uint64_t word) {
  word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9u;
  word = (word ^ (word >> 27)) * 0x94d049bb133111ebu;
  return word ^ (word >> 31);
}

// The stream `stream` of the seed `seed`; its numbers are drawn in order.
class RandomStream {
 public:
  DC_HOST_DEVICE RandomStream(uint64_t seed, uint64_t stream) : key_(mix_bits(mix_bits(seed) + stream)) {}
  // Leaves out the next `numbers`: a thread of a GPU draws its own of a stream that many share.
  DC_HOST_DEVICE void skip(uint64_t numbers) { counter_ += numbers * kStep; }
  // In [0, 1), in steps of 2^-53.
  DC_HOST_DEVICE double uniform() {
    counter_ += kStep;
    return static_cast<double>(mix_bits(key_ + counter_) >> 11) * 0x1p-53;
  }
  // In [0, size).
  DC_HOST_DEVICE int64_t below(int64_t size) {
    const int64_t index = static_cast<int64_t>(uniform() * static_cast<double>(size));
    return index < size ? index : size - 1;
  }

 private:
  static constexpr uint64_t kStep = 0x9e3779b97f4a7c15u;  // odd, so that all 2^64 counters come up
  uint64_t key_;
  uint64_t counter_ = 0;
};

}  // namespace deepclust
