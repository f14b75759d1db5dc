// Indices of a memory bank's ops from the side of libtorch: looked at before anything is computed or written.
#pragma once

#include "../torch/cuda_arguments.h"
#include "bank_index.h"

namespace deepclust::cuda {

struct BankIndices {
  const char* arg;
  const Tensor& index;  // dense
  int64_t lowest;       // of what is allowed
};

// Refuses the first number that is below `lowest` or not below `rows`. It waits for the device, once: an error cannot
// be raised without. A CUDA graph that is being recorded cannot wait; the kernels, which read and write nothing outside
// of the bank, then answer NaN, or leave the bank as it is.
inline void refuse_bad_index(const char* op, int64_t rows, const std::vector<BankIndices>& all, void* stream) {
  if (is_capturing(stream)) return;
  const Tensor flags = row_flags(static_cast<int64_t>(all.size()), all[0].index);
  auto* flag = static_cast<unsigned long long*>(flags.mutable_data_ptr());
  for (const BankIndices& one : all)
    find_bad_index(static_cast<const int64_t*>(one.index.data_ptr()), one.index.numel(), one.lowest, rows, flag++,
                   stream);
  check_launch(op);
  const std::vector<int64_t> places = to_host(flags);
  for (size_t i = 0; i < all.size(); ++i) {
    if (places[i] < 0) continue;
    const int64_t found = to_host(all[i].index)[static_cast<size_t>(places[i])];
    STD_TORCH_CHECK(false, op, ": '", all[i].arg, "' must be ",
                    all[i].lowest == 0 ? "between 0 and " : "-1 or between 0 and ", rows - 1, ", got ", found);
  }
}

}  // namespace deepclust::cuda
