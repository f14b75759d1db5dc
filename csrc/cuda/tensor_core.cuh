// Tensor cores and asynchronous copies, from compute capability 8.0 on: what PTX says, and a twin of each for the
// emulator, lane by lane, so that a wrong fragment shows there.
//
// Fragments as PTX lays them out, lane = 4 g + t:
//   a, 16 x 16: {(g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8)}, each with the element to its right;
//   b, 16 x 8:  {(2t, g), (2t + 8, g)}, each with the element below;
//   sums, 16 x 8: (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
#pragma once

#include "../common/half.h"
#include "reduce.cuh"

#if !defined(__CUDACC__)
#include "../emu/tensor_sum.h"
#endif

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define DC_NO_TENSOR_CORES 1  // the host launches none of this there
#endif

namespace deepclust::cuda {

// Starts to copy 16 bytes, both addresses on such a bound, from global to shared memory. What is there may be read
// after copy_wait(), and by the rest of the block after a barrier behind it.
DC_DEVICE void copy_async(void* to, const void* from) {
#if defined(DC_NO_TENSOR_CORES)
  __trap();
#elif defined(__CUDA_ARCH__)
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from) : "memory");
#elif !defined(__CUDACC__)
  emu::start_copy(to, from, 16, std::source_location::current());
#endif
}

// Waits for all copies that this thread has started.
DC_DEVICE void copy_wait() {
#if defined(DC_NO_TENSOR_CORES)
  __trap();
#elif defined(__CUDA_ARCH__)
  asm volatile("cp.async.wait_all;" ::: "memory");
#elif !defined(__CUDACC__)
  emu::finish_copies();
#endif
}

// The same value, as something that the compiler has not seen before: what is computed from it is computed anew, and
// not kept from where it was computed first.
DC_DEVICE float unseen(float value) {
#if defined(__CUDA_ARCH__)
  asm volatile("" : "+f"(value));
#endif
  return value;
}

// Four 8 x 8 matrices of 16-bit elements from shared memory: lane 8 i + r gives the address of row r of matrix i, on a
// 16-byte bound, and gets elements 2t and 2t + 1 of row g of each.
DC_DEVICE void load_matrices(const void* row, uint32_t (&out)[4]) {
#if defined(DC_NO_TENSOR_CORES)
  __trap();
#elif defined(__CUDA_ARCH__)
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(static_cast<unsigned>(__cvta_generic_to_shared(row)))
               : "memory");
#elif !defined(__CUDACC__)
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const auto own = static_cast<unsigned long long>(reinterpret_cast<std::uintptr_t>(row));
  for (int i = 0; i < 4; ++i) {
    const unsigned long long other = __shfl_sync(kFullMask, own, 8 * i + lane / 4);
    memcpy(&out[i], reinterpret_cast<const unsigned char*>(other) + lane % 4 * 4, sizeof(out[i]));
  }
#endif
}

// sums += a b, bfloat16 in, float32 sums.
DC_DEVICE void multiply_matrices(const uint32_t (&a)[4], uint32_t b0, uint32_t b1, float (&sums)[4]) {
#if defined(DC_NO_TENSOR_CORES)
  __trap();
#elif defined(__CUDA_ARCH__)
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#elif !defined(__CUDACC__)
  const int lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
  const auto half = [](uint32_t pair, int which) { return float_of(which != 0 ? pair & 0xffff0000u : pair << 16); };
  const auto two = [](uint32_t low, uint32_t high) { return low | static_cast<unsigned long long>(high) << 32; };
  const auto upper = [](unsigned long long pair) { return static_cast<uint32_t>(pair >> 32); };
  const unsigned long long left[2] = {two(a[0], a[1]), two(a[2], a[3])}, right = two(b0, b1);
  for (int quad = 0; quad < 4; ++quad) {  // the lanes that hold k = 2 quad, 2 quad + 1 and 8 on
    uint32_t row[4];
    for (int i = 0; i < 2; ++i) {
      const unsigned long long pair = __shfl_sync(kFullMask, left[i], 4 * g + quad);
      row[2 * i] = static_cast<uint32_t>(pair);
      row[2 * i + 1] = upper(pair);
    }
    for (int side = 0; side < 2; ++side) {
      const unsigned long long pair = __shfl_sync(kFullMask, right, 4 * (2 * t + side) + quad);
      const uint32_t low = static_cast<uint32_t>(pair), high = upper(pair);
      for (int lower = 0; lower < 2; ++lower)
        sums[2 * lower + side] = emu::tensor_sum(
            sums[2 * lower + side], {half(row[lower], 0) * half(low, 0), half(row[lower], 1) * half(low, 1),
                                     half(row[lower + 2], 0) * half(high, 0), half(row[lower + 2], 1) * half(high, 1)});
    }
  }
#endif
}

}  // namespace deepclust::cuda
