// Compiler-facing macros, shared by host and device code. No torch, no CUDA headers.
#pragma once

#if defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
#error "deepclust_ext finds rows with NaN or infinity: compile it without -ffast-math and -ffinite-math-only"
#endif

#if defined(__CUDACC__)
#define DC_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define DC_HOST_DEVICE inline __attribute__((always_inline))
#endif

#define DC_INLINE inline __attribute__((always_inline))
#define DC_INLINE_LAMBDA __attribute__((always_inline))
