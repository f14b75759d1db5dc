// The kernel dialect: CUDA's own names, and macros only where plain C++ cannot follow.
//
// A `_kernel.cuh` includes this file and nothing of CUDA. nvcc compiles it for the device; g++ compiles the same text
// against csrc/emu, which runs one fiber per CUDA thread. Rules that both sides rely on:
//   - shared memory through DC_SHARED and DC_DYNAMIC_SHARED, barriers through DC_SYNC and DC_SYNCWARP, so that the
//     emulator sees them; every thread of a block reaches the same DC_SYNC, and none has returned before it;
//   - masks of warp functions are explicit, and name only lanes that arrive; no implicit warp synchrony;
//   - no float atomics on results: the same bits on every run;
//   - PTX stands in `#if defined(__CUDA_ARCH__)` blocks with a generic twin.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)

#define DC_GLOBAL __global__
#define DC_DEVICE __device__ __forceinline__
// Threads a block, and how many blocks a multiprocessor should have room for.
#define DC_LAUNCH_BOUNDS(...) __launch_bounds__(__VA_ARGS__)

#define DC_PRAGMA(text) _Pragma(#text)
#define DC_UNROLL DC_PRAGMA(unroll)
#define DC_UNROLL_BY(n) DC_PRAGMA(unroll n)

// T name[N] of shared memory, on a 16-byte bound.
#define DC_SHARED(T, name, N) __shared__ __align__(16) T name[N]
// T* name: the dynamic shared memory that the launch asked for, on a 16-byte bound.
#define DC_DYNAMIC_SHARED(T, name)                                   \
  extern __shared__ __align__(16) unsigned char dc_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(dc_dynamic_shared)

#define DC_SYNC() __syncthreads()
#define DC_SYNCWARP(mask) __syncwarp(mask)

// DC_LAUNCH(kernel, grid, block, smem, stream)(arguments...). A kernel with several template arguments is named first:
// auto* const kernel = &products<float, 32>;
#define DC_LAUNCH(kernel, grid, block, smem, stream) kernel<<<grid, block, smem, stream>>>

namespace deepclust::cuda {
using Stream = cudaStream_t;
}

#else
#include "../emu/simt_host.h"
#endif

namespace deepclust::cuda {

inline constexpr unsigned kFullMask = 0xffffffffu;

// N elements at once where they fill 4, 8 or 16 bytes; p lies on a bound of that size (the emulator checks it).
template <typename T, int N>
struct alignas(sizeof(T) * N) Vector {
  T value[N];
};

#if defined(__CUDACC__)
template <int N, typename T>
DC_DEVICE Vector<T, N> load_vec(const T* p) {
  return *reinterpret_cast<const Vector<T, N>*>(p);
}
template <int N, typename T>
DC_DEVICE void store_vec(T* p, const Vector<T, N>& vector) {
  *reinterpret_cast<Vector<T, N>*>(p) = vector;
}
#endif

}  // namespace deepclust::cuda
