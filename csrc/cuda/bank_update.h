// bank_update_ on the GPU, as its torch side sees it.
#pragma once

#include <cstdint>

#include "../common/dtype.h"

namespace deepclust::cuda {

struct BankUpdate {
  int64_t rows, depth, features;   // bank [rows, depth], features [features, depth]
  int64_t row_stride, col_stride;  // of the bank
  double momentum;
  DType dtype, feature_dtype;  // of the bank; of the features, float32 or float64
};

// Row index[i] of the bank <- normalise(momentum * row + (1 - momentum) * features[i]), for i in order. An index that
// is not in the bank changes nothing. index and features are dense.
void bank_update(const BankUpdate& update, void* bank, const int64_t* index, const void* features, void* stream);

}  // namespace deepclust::cuda
