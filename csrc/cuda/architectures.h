// Which GPUs this library has code for.
#pragma once

// As in TORCH_CUDA_ARCH_LIST, separated by spaces: "8.0 9.0+PTX". Python reads it too, by this name.
extern "C" __attribute__((visibility("default"))) const char* const deepclust_cuda_architectures;
