// Which negatives a pair of jule_loss meets, so that the CPU, the GPU and the reference draw the same ones.
//
// A batch of B samples is ordered by (label, index). A pair (a, p), a < p of one label, draws k = min(n_negatives,
// labels in the batch - 1) of the `others` samples of another label, ranked in that order. Its numbers come from a
// stream of its own, number a B + p of the seed. Number i, from 0, is a rank r in [0, others - k + i], each equally
// likely; negative i has the rank r, or others - k + i where an earlier negative of the pair has r already. That is
// Floyd's algorithm: every set of k ranks is equally likely (up to the generator's rounding to 2^-53), and nothing is
// rejected and drawn again, so it ends after k numbers. others >= labels - 1 >= k, for each other label has a sample.
#pragma once

#include "random.h"

namespace deepclust {

// More than that would not fit in a multiprocessor's shared memory.
inline constexpr int64_t kMostNegatives = 1024;

DC_HOST_DEVICE RandomStream pair_stream(int64_t seed, int64_t anchor, int64_t positive, int64_t batch) {
  return {static_cast<uint64_t>(seed), static_cast<uint64_t>(anchor * batch + positive)};
}

// The place in the order of the sample of rank `rank`, for a pair whose label has the places [begin, end).
DC_HOST_DEVICE int64_t place_of_other(int64_t rank, int64_t begin, int64_t end) {
  return rank < begin ? rank : rank + (end - begin);
}

}  // namespace deepclust
