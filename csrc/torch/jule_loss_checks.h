// jule_loss's arguments, whichever device they are on.
#pragma once

#include <cmath>

#include "../common/triplet_rule.h"
#include "checks.h"
#include "dispatch.h"

namespace deepclust {

inline void check_jule_loss(const Tensor& z, const Tensor& labels, const Tensor& seed, double gamma, double margin,
                            int64_t n_negatives) {
  DC_CHECK(z.dim() == 2 && is_floating(z), "jule_loss", "z", "a floating-point matrix");
  DC_CHECK(z.size(1) > 0, "jule_loss", "z", "at least one column wide");
  DC_CHECK(z.size(0) < (int64_t{1} << 31), "jule_loss", "z", "of fewer than 2^31 rows");
  DC_CHECK(labels.scalar_type() == ScalarType::Long && has_sizes(labels, {z.size(0)}), "jule_loss", "labels",
           "int64 with one entry for each row of z");
  DC_CHECK(seed.scalar_type() == ScalarType::Long && seed.numel() == 1, "jule_loss", "seed", "one int64");
  DC_CHECK(std::isfinite(gamma) && gamma >= 0, "jule_loss", "gamma", "finite and at least 0");
  DC_CHECK(std::isfinite(margin) && margin >= 0, "jule_loss", "margin", "finite and at least 0");
  DC_CHECK(n_negatives >= 1 && n_negatives <= kMostNegatives, "jule_loss", "n_negatives", "between 1 and 1024");
}

}  // namespace deepclust
