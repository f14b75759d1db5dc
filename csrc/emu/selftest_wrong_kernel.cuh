// Kernels that are wrong, each in one way: what the emulator must find. Signature as in selftest_kernel.cuh.
#pragma once

#include "../cuda/simt.h"

namespace deepclust::selftest {

// Reads its neighbour's entry, which may not be there yet.
DC_GLOBAL void wrong_read_before_write(const float* x, float* out, int) {
  DC_SHARED(float, cells, 64);
  cells[threadIdx.x] = x[threadIdx.x];
  out[threadIdx.x] = cells[(threadIdx.x + 1) % 64];
}

// The barrier before the second round is missing: a quick thread overwrites what a slow one has yet to read.
DC_GLOBAL void wrong_write_before_read(const float* x, float* out, int) {
  DC_SHARED(float, cells, 64);
  float sum = 0.0f;
  for (int round = 0; round < 2; ++round) {
    cells[threadIdx.x] = x[threadIdx.x] * static_cast<float>(round + 1);
    DC_SYNC();
    sum += cells[(threadIdx.x + 1) % 64];
  }
  out[threadIdx.x] = sum;
}

// The barrier between two uses of `parts` is missing, and only thread 0 reads them: the other warp must get a whole
// reduction ahead of it before that shows.
DC_GLOBAL void wrong_scratch_reused(const float* x, float* out, int) {
  DC_SHARED(float, parts, 2);
  for (int round = 0; round < 2; ++round) {
    float sum = x[threadIdx.x] * static_cast<float>(round + 1);
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = sum;
    DC_SYNC();
    if (threadIdx.x == 0) out[round] = parts[0] + parts[1];
  }
}

DC_GLOBAL void wrong_divergent_barrier(const float*, float* out, int) {
  if (threadIdx.x < 16) {
    DC_SYNC();
    out[threadIdx.x] = 0.0f;
  } else {
    DC_SYNC();
    out[threadIdx.x] = 1.0f;
  }
}

DC_GLOBAL void wrong_early_return(const float*, float* out, int n) {
  if (static_cast<int>(threadIdx.x) >= n) return;
  DC_SYNC();
  out[threadIdx.x] = 1.0f;
}

DC_GLOBAL void wrong_caller_not_in_mask(const float* x, float* out, int) {
  out[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, x[threadIdx.x], 1);
}

// Under the forward schedule lane 0 has returned before the others call; under the reverse one it returns after.
DC_GLOBAL void wrong_returned_lane(const float* x, float* out, int) {
  out[threadIdx.x] = 0.0f;
  if (threadIdx.x == 0) return;
  out[threadIdx.x] = __shfl_sync(cuda::kFullMask, x[threadIdx.x], 1);
}

DC_GLOBAL void wrong_missing_lane(const float* x, float* out, int) {
  out[threadIdx.x] = __ballot_sync(cuda::kFullMask, x[threadIdx.x] > 0.0f) != 0 ? 1.0f : 0.0f;
}

DC_GLOBAL void wrong_unnamed_source(const float* x, float* out, int) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_down_sync(0x0000ffffu, x[threadIdx.x], 8);
}

DC_GLOBAL void wrong_mixed_functions(const float* x, float* out, int) {
  if (threadIdx.x % 2 == 0)
    out[threadIdx.x] = __shfl_xor_sync(cuda::kFullMask, x[threadIdx.x], 2);
  else
    out[threadIdx.x] = __any_sync(cuda::kFullMask, 1) != 0 ? 1.0f : 0.0f;
}

DC_GLOBAL void wrong_mixed_lines(const float* x, float* out, int) {
  if (threadIdx.x % 2 == 0)
    out[threadIdx.x] = __shfl_xor_sync(cuda::kFullMask, x[threadIdx.x], 2);
  else
    out[threadIdx.x] = __shfl_xor_sync(cuda::kFullMask, x[threadIdx.x], 2);
}

// One place in the text, as a macro makes it, and two functions.
#define DC_EITHER(condition) ((condition) ? __any_sync(cuda::kFullMask, 1) : __all_sync(cuda::kFullMask, 1))
DC_GLOBAL void wrong_mixed_in_macro(const float*, float* out, int) {
  out[threadIdx.x] = static_cast<float>(DC_EITHER(threadIdx.x % 2 == 0));
}
#undef DC_EITHER

DC_GLOBAL void wrong_mixed_masks(const float* x, float* out, int) {
  const unsigned mask = threadIdx.x == 3 ? 0x7fffffffu : cuda::kFullMask;
  out[threadIdx.x] = __shfl_xor_sync(mask, x[threadIdx.x], 1);
}

DC_GLOBAL void wrong_width(const float* x, float* out, int) {
  out[threadIdx.x] = __shfl_sync(cuda::kFullMask, x[threadIdx.x], 0, 12);
}

DC_GLOBAL void wrong_offset(const float* x, float* out, int) {
  out[threadIdx.x] = __shfl_down_sync(cuda::kFullMask, x[threadIdx.x], 32);
}

// One half of the warp waits at the barrier, the other for lanes of the first.
DC_GLOBAL void wrong_deadlock(const float* x, float* out, int) {
  if (threadIdx.x < 16) {
    DC_SYNC();
    out[threadIdx.x] = 0.0f;
  } else {
    out[threadIdx.x] = __shfl_xor_sync(cuda::kFullMask, x[threadIdx.x], 1);
  }
}

DC_GLOBAL void wrong_endless_spin(const float*, float* out, int) {
  DC_SHARED(int, flag, 1);
  flag[0] = 0;
  DC_SYNC();
  if (threadIdx.x == 0)
    while (atomicAdd(flag, 0) == 0) {
    }
  DC_SYNC();
  out[threadIdx.x] = 1.0f;
}

DC_GLOBAL void wrong_vector(const float* x, float* out, int) {
  cuda::store_vec<4>(out, cuda::load_vec<4>(x + 1));
}

DC_GLOBAL void wrong_atomic_address(const float*, float* out, int) {
  atomicAdd(reinterpret_cast<unsigned*>(reinterpret_cast<unsigned char*>(out) + 2), 1u);
}

// For the sanitizers: a step beyond each kind of memory.
DC_GLOBAL void wrong_shared_index(const float*, float* out, int n) {
  DC_SHARED(float, cells, 16);
  float* const p = cells;  // through a pointer, or the bounds check speaks before the address check
  p[n] = 1.0f;
  out[0] = p[n];
}
DC_GLOBAL void wrong_shared_bounds(const float*, float* out, int n) {
  DC_SHARED(float, cells, 16);
  cells[n] = 1.0f;
  out[0] = cells[n];
}
DC_GLOBAL void wrong_dynamic_index(const float*, float* out, int n) {
  DC_DYNAMIC_SHARED(float, cells);
  cells[n] = 1.0f;
  out[0] = cells[n];
}
DC_GLOBAL void wrong_global_index(const float* x, float* out, int n) {
  out[0] = x[n];
}

// Leaves the last entry as it was.
DC_GLOBAL void wrong_unwritten(const float* x, float* out, int n) {
  for (int i = 0; i < n - 1; ++i) out[i] = x[i];
}

template <int kBytes>
DC_GLOBAL void wrong_shared_size(const float*, float* out, int) {
  DC_SHARED(unsigned char, cells, kBytes);
  cells[0] = 1;
  out[0] = cells[0];
}

DC_DEVICE int deep(volatile int* above, int depth) {
  volatile int frame[256];
  frame[0] = *above + 1;
  return depth == 0 ? frame[0] : deep(frame, depth - 1) + frame[0];
}
DC_GLOBAL void wrong_stack(const float*, float* out, int n) {
  volatile int bottom = 0;
  out[0] = static_cast<float>(deep(&bottom, n));
}

DC_GLOBAL void wrong_nested_launch(const float* x, float* out, int n) {
  DC_LAUNCH(wrong_unwritten, 1, 1, 0, nullptr)(x, out, n);
}

}  // namespace deepclust::selftest
