#include "launch_error.h"

#include <cuda_runtime_api.h>

#include <stdexcept>

#include "../torch/cuda.h"
#include "architectures.h"

namespace deepclust::cuda {

void check_launch(const char* op) {
  const cudaError_t error = cudaGetLastError();
  switch (error) {
    case cudaSuccess: return;
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorUnsupportedPtxVersion: {
      int device = 0, major = 0, minor = 0;
      if (cudaGetDevice(&device) == cudaSuccess &&
          cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
          cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess)
        throw std::runtime_error(no_code_message(op, major, minor, deepclust_cuda_architectures));
      [[fallthrough]];
    }
    default: throw std::runtime_error(cuda_error_message(op, cudaGetErrorName(error), cudaGetErrorString(error)));
  }
}

}  // namespace deepclust::cuda
