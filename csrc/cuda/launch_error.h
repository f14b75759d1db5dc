// What a failed launch tells the user. Knows neither CUDA nor torch, so that a test can call it without a GPU.
#pragma once

#include <string>

namespace deepclust::cuda {

// The library holds no code that this GPU (or its driver) can run: the commonest mishap of a source build, and one that
// CUDA's own text ("no kernel image is available") leaves without a mend.
inline std::string no_code_message(const std::string& op, int major, int minor, const std::string& architectures) {
  const std::string capability = std::to_string(major) + "." + std::to_string(minor);
  return op + ": the GPU must be one that deepclust_ext is built for (" + architectures + "), got compute capability " +
         capability + "\n  TORCH_CUDA_ARCH_LIST=" + capability +
         " pip install --force-reinstall --no-deps --no-cache-dir deepclust_ext";
}

inline std::string cuda_error_message(const std::string& op, const std::string& name, const std::string& description) {
  return op + ": CUDA error " + name + ": " + description;
}

}  // namespace deepclust::cuda
