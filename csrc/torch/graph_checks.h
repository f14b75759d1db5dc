// What the raw ops on k-NN graphs ask of their arguments, on every device.
#pragma once

#include <cmath>

#include "checks.h"

namespace deepclust {

inline void check_neighbour_indices(const char* op, const Tensor& indices) {
  STD_TORCH_CHECK(indices.dim() == 2 && indices.scalar_type() == ScalarType::Long && indices.size(1) >= 1, op,
                  ": 'indices' must be an int64 tensor (n, k) with k of at least 1");
  STD_TORCH_CHECK(indices.size(0) < (int64_t{1} << 31), op, ": 'indices' must have fewer than 2^31 rows");
}

inline void check_neighbour(const char* op, int64_t index, int64_t n, int64_t row) {
  STD_TORCH_CHECK(index >= 0 && index < n, op, ": 'indices' must be between 0 and n - 1 = ", n - 1, ", got ", index,
                  " in row ", row);
}

inline void check_affinity_weights(const Tensor& squared_distances, double a) {
  const ScalarType dtype = squared_distances.scalar_type();
  DC_CHECK((dtype == ScalarType::Float || dtype == ScalarType::Double) && squared_distances.dim() == 2,
           "affinity_weights", "squared_distances", "a float32 or float64 matrix");
  DC_CHECK(a > 0.0 && std::isfinite(a), "affinity_weights", "a", "finite and above 0");
}

// What the scale tells of the distances: whether it is finite.
inline void check_affinity_scale(bool finite) {
  DC_CHECK(finite, "affinity_weights", "squared_distances", "finite and at least 0");
}

}  // namespace deepclust
