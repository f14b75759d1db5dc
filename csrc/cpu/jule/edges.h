// Distances and gradients between one row and a list of others.
#pragma once

#include <cstdint>

namespace deepclust::cpu {

// distance[j] = |z_anchor - z_j|^2 of each j listed; z [.., d].
template <typename T>
void listed_distances(const T* z, int64_t d, int64_t anchor, const int32_t* list, int64_t count, T* distance);

// gradient[anchor] += weight_j (z_anchor - z_j) and gradient[j] -= the same, for each j listed; none is the anchor.
template <typename T>
void add_edges(const T* z, int64_t d, int64_t anchor, const int32_t* list, const T* weight, int64_t count, T* gradient);

}  // namespace deepclust::cpu
