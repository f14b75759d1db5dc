#include "bank_update.h"

#include "../torch/bank_checks.h"
#include "bank_refusal.h"

namespace deepclust::cuda {

// The rows of `bank` at `index` become momentum row + (1 - momentum) feature, L2-normalised, one after another.
void bank_update(Tensor bank, const Tensor& index, const Tensor& features, double momentum) {
  constexpr const char* kOp = "bank_update_";
  check_bank(kOp, bank);
  check_bank_rows(kOp, "features", features, bank);
  check_bank_index(kOp, index, features);
  DC_CHECK(momentum >= 0 && momentum <= 1, "bank_update_", "momentum", "between 0 and 1");
  check_same_device(kOp, "bank", bank, "index", index);
  check_same_device(kOp, "bank", bank, "features", features);
  const DeviceScope scope(bank);
  const Tensor own = dense(index), rows = dense(features);
  if (index.size(0) == 0) return;
  refuse_bad_index(kOp, bank.size(0), {{"index", own, 0}}, scope.stream());
  const BankUpdate update{bank.size(0),   bank.size(1), index.size(0),  bank.stride(0),
                          bank.stride(1), momentum,     dtype_of(bank), dtype_of(rows)};
  bank_update(update, bank.mutable_data_ptr(), static_cast<const int64_t*>(own.data_ptr()), rows.data_ptr(),
              scope.stream());
  check_launch(kOp);
}

}  // namespace deepclust::cuda

STABLE_TORCH_LIBRARY_IMPL(deepclust, CUDA, library) {
  using deepclust::Tensor;
  using Update = void (*)(Tensor, const Tensor&, const Tensor&, double);
  library.impl("bank_update_", TORCH_BOX(static_cast<Update>(&deepclust::cuda::bank_update)));
}
