// When k-means++ brings its weights up to date, the same on either backend, so that both draw alike.
#pragma once

#include <cstdint>

#include "macros.h"

namespace deepclust {

// Weights whose sum is kept, so that one of them changes at little cost.
inline constexpr int64_t kWeightBlock = 1024;

// Seeds wait for a pass until they are as many as those brought in.
DC_HOST_DEVICE bool worth_a_pass(int64_t waiting, int64_t done) {
  return waiting >= (done > 1 ? done : 1);
}

// After so many rejections of one seed the stale weights have become too loose.
inline constexpr int kRejections = 32;

}  // namespace deepclust
