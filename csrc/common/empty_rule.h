// What becomes of a cluster without members, the same on either backend.
#pragma once

#include <cstdint>

namespace deepclust {

enum class EmptyRule : int64_t { kSplit = 0, kFarthest = 1, kKeep = 2 };

}  // namespace deepclust
