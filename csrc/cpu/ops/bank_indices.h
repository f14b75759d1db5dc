// What the bank's ops share on the CPU: indices that are looked at before anything is read or written, and the bank in
// its own dtype.
#pragma once

#include <type_traits>

#include "../../common/half.h"
#include "../../common/matrix.h"
#include "../../torch/checks.h"

namespace deepclust::cpu {

// Refuses the first index outside of [least, rows); `index` is contiguous.
inline void check_indices(const char* op, const char* arg, const Tensor& index, int64_t rows, int64_t least) {
  const auto* const data = static_cast<const int64_t*>(index.data_ptr());
  for (int64_t i = 0; i < index.numel(); ++i)
    STD_TORCH_CHECK(data[i] >= least && data[i] < rows, op, ": '", arg, "' must be ",
                    least == 0 ? "between 0 and " : "-1 or between 0 and ", rows - 1, ", got ", data[i]);
}

// f(Matrix<const S>) with S the type in which the bank is stored: double for sums in double only.
template <typename T, typename F>
void dispatch_bank(const Tensor& bank, const F& f) {
  const auto as = [&](auto stored) {
    using S = decltype(stored);
    f(Matrix<const S>{static_cast<const S*>(bank.data_ptr()), bank.size(0), bank.size(1), bank.stride(0),
                      bank.stride(1)});
  };
  switch (bank.scalar_type()) {
    case ScalarType::Half: return as(Half{});
    case ScalarType::BFloat16: return as(BFloat16{});
    case ScalarType::Float: return as(float{});
    default:
      if constexpr (std::is_same_v<T, double>) as(double{});
  }
}

}  // namespace deepclust::cpu
