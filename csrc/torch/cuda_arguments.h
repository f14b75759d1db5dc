// From torch's tensors to what the torch-free launches take.
#pragma once

#include <cstdint>

#include "../common/dtype.h"
#include "cuda.h"

namespace deepclust::cuda {

inline DType dtype_of(const Tensor& t) {
  switch (t.scalar_type()) {
    case ScalarType::Half: return DType::kHalf;
    case ScalarType::BFloat16: return DType::kBFloat16;
    case ScalarType::Double: return DType::kDouble;
    default: return DType::kFloat;  // the ops' checks let nothing else through
  }
}

// The kernels read rows as they lie in a fresh tensor; another layout costs one copy.
inline Tensor dense(const Tensor& t) {
  return t.is_contiguous() ? t : torch::stable::contiguous(t);
}

// The same for cuBLAS, which chooses its algorithm by the address too, and with it the order of its sums: a view that
// starts where no fresh tensor would is copied, so that it gives the bits of one. 256 bytes is what cuBLAS may assume.
inline Tensor dense_on_bound(const Tensor& t) {
  if (!t.is_contiguous()) return torch::stable::contiguous(t);
  return reinterpret_cast<std::uintptr_t>(t.data_ptr()) % 256 == 0 ? t : torch::stable::clone(t);
}

inline Tensor workspace(std::size_t bytes, const Tensor& like) {
  return empty({static_cast<int64_t>(bytes)}, ScalarType::Byte, like);
}

// How many matrices, or whatever the last `of_each` dimensions are, `t` holds.
inline int64_t batch_of(const Tensor& t, int64_t of_each) {
  int64_t batch = 1;
  for (int64_t i = 0; i + of_each < t.dim(); ++i) batch *= t.size(i);
  return batch;
}

// `count` flags for rows that are not finite, int64 and -1: none yet.
inline Tensor row_flags(int64_t count, const Tensor& like) {
  return torch::stable::full(std::vector<int64_t>{count}, -1, ScalarType::Long, std::nullopt, like.device());
}

// The elements of a small int64 tensor. It waits for the device.
inline std::vector<int64_t> to_host(const Tensor& t) {
  const Tensor copy = torch::stable::to(t, torch::stable::Device(torch::headeronly::DeviceType::CPU));
  const auto* const data = static_cast<const int64_t*>(copy.data_ptr());
  return std::vector<int64_t>(data, data + copy.numel());
}

// torch's cuBLAS handle of the current device, set to the current stream.
inline void* blas_handle() {
  void* handle = nullptr;
  TORCH_ERROR_CODE_CHECK(torch_get_current_cuda_blas_handle(&handle));
  return handle;
}

}  // namespace deepclust::cuda
