#include "architectures.h"

#ifndef DC_CUDA_ARCHITECTURES
#error "setup.py defines DC_CUDA_ARCHITECTURES, beside the -gencode flags that must agree with it"
#endif

const char* const deepclust_cuda_architectures = DC_CUDA_ARCHITECTURES;
