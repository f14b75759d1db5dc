// Whether knn's filter should multiply coordinates in a subspace in place of whole rows, and how many.
//
// Most data vary along few directions, so that most pairs are too far apart along those alone. Each direction costs a
// multiply-add of 16 bits a pair, and each pair that is left an exact cost: what is best is found on a sample of rows.
// There a row's (k m / n)-th nearest of the sample's m rows, the first at least, lies about as far
// as the k-th of all n, or farther, and the share of the rows that the coordinates leave within that distance is
// counted for every width.
#pragma once

#include "../codes/subspace.h"

namespace deepclust::cpu {

inline constexpr int64_t kLeastProjectedDepth = 192;  // rows of fewer dimensions are not looked at

// Whether a search is large enough for a look.
bool worth_projecting(int64_t asked, int64_t points, int64_t depth);

// The choice for the k nearest of `points` rows.
SubspaceWidth width_for_neighbours(int64_t k, int64_t points);

}  // namespace deepclust::cpu
