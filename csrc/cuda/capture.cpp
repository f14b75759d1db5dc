#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

#include "../torch/cuda.h"

namespace deepclust::cuda {

bool is_capturing(void* stream) {
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &capture);
  return capture != cudaStreamCaptureStatusNone;
}

// deepclust_ext.ops._common.refuse_capture says the same for what Python itself waits for.
void refuse_capture(const char* op, void* stream) {
  if (is_capturing(stream))
    throw std::runtime_error(std::string(op) +
                             ": a CUDA graph cannot record it, for it waits to hear whether its inputs are finite\n"
                             "  call it outside of the capture");
}

}  // namespace deepclust::cuda
