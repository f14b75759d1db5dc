// From torch's tensors to what the torch-free launches take.
#pragma once

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

inline Tensor workspace(std::size_t bytes, const Tensor& like) {
  return empty({static_cast<int64_t>(bytes)}, ScalarType::Byte, like);
}

// torch's cuBLAS handle of the current device, set to the current stream.
inline void* blas_handle() {
  void* handle = nullptr;
  TORCH_ERROR_CODE_CHECK(torch_get_current_cuda_blas_handle(&handle));
  return handle;
}

}  // namespace deepclust::cuda
