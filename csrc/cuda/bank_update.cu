#include "../common/arithmetic.h"
#include "bank_update_kernel.cuh"

namespace deepclust::cuda {

void bank_update(const BankUpdate& update, void* bank, const int64_t* index, const void* features, void* stream) {
  if (update.features == 0) return;
  dispatch_stored(update.dtype, [&](auto zero) {
    using E = decltype(zero);
    const auto run = [&](auto* features) {
      auto* const kernel = &update_rows<E, std::remove_const_t<std::remove_pointer_t<decltype(features)>>>;
      DC_LAUNCH(kernel, static_cast<unsigned>(ceil_div(update.features, kWarps)), kThreads, 0,
                static_cast<Stream>(stream))
      (update, static_cast<E*>(bank), index, features);
    };
    if (update.feature_dtype == DType::kDouble) return run(static_cast<const double*>(features));
    if constexpr (sizeof(E) < sizeof(double)) run(static_cast<const float*>(features));
  });
}

}  // namespace deepclust::cuda
