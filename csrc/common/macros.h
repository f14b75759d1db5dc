// Compiler-facing macros, shared by host and device code. No torch, no CUDA headers.
#pragma once

#if defined(__CUDACC__)
#define DC_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define DC_HOST_DEVICE inline __attribute__((always_inline))
#endif

#define DC_INLINE inline __attribute__((always_inline))
#define DC_INLINE_LAMBDA __attribute__((always_inline))

// A leaf kernel compiled once per x86-64 level and picked when the library is loaded, so that one binary runs
// anywhere and uses AVX-512 where it exists. Whatever it calls must be DC_INLINE (a lambda DC_INLINE_LAMBDA): a callee
// that is not inlined is compiled for the oldest processor, forty times slower.
#if defined(__x86_64__) && !defined(__clang__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(DC_NO_CLONES)
#define DC_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define DC_CLONES
#endif
