// What the torch side of a CUDA op needs: its tensors' device, the current stream, and the outcome of a launch.
#pragma once

#include <torch/csrc/stable/accelerator.h>

#include <stdexcept>
#include <string>

#include "stable.h"

namespace deepclust::cuda {

// While it lives, `tensor`'s device is the current one; stream() is the stream that torch is using there. Without it,
// work lands on the first GPU, or beside the user's stream: right by luck in most tests.
class DeviceScope {
 public:
  explicit DeviceScope(const Tensor& tensor) : guard_(tensor.get_device_index()) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream_));
  }
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

  // A cudaStream_t, untyped so that this file needs no CUDA header.
  void* stream() const { return stream_; }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  void* stream_ = nullptr;
};

inline std::string device_name(const Tensor& tensor) {
  return tensor.is_cuda()  ? "cuda:" + std::to_string(tensor.get_device_index())
         : tensor.is_cpu() ? "cpu"
                           : "another kind of device";
}

// The dispatcher asks for one CUDA tensor among the arguments; a kernel needs all of them on the anchor's GPU.
inline void check_same_device(const char* op, const char* anchor_name, const Tensor& anchor, const char* name,
                              const Tensor& tensor) {
  if (tensor.is_cuda() && tensor.get_device_index() == anchor.get_device_index()) return;
  const std::string expected = device_name(anchor), got = device_name(tensor);
  throw std::runtime_error(std::string(op) + ": '" + name + "' must be on the device of '" + anchor_name + "' (" +
                           expected + "), got " + got + "\n  " + name + ".to(" + anchor_name + ".device)");
}

// Call after the launches of `op`: raises the error they left, with the mend where this GPU has no code in the library.
// It does not wait for the GPU, and may stand inside the capture of a CUDA graph.
void check_launch(const char* op);

// Whether a CUDA graph is being recorded on `stream`.
bool is_capturing(void* stream);

// Refuses an op that must wait for the device where a CUDA graph is being recorded on `stream`: torch's own error would
// name a call inside of the op, and end the capture. Call before the first launch.
void refuse_capture(const char* op, void* stream);

}  // namespace deepclust::cuda
