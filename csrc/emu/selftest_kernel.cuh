// Kernels that are right: what the emulator must run to the same result under every schedule.
//
// All have one signature, so that one binding runs them by name: x [n] is read, out is what the test asks for.
#pragma once

#include "../cuda/simt.h"

namespace deepclust::selftest {

inline constexpr int kMaxBlock = 256;

// out[block] = sum of the block's x, halving an array in shared memory. Blocks of a power of two.
DC_GLOBAL void sum_shared(const float* x, float* out, int n) {
  DC_SHARED(float, part, kMaxBlock);
  const int t = static_cast<int>(threadIdx.x), i = static_cast<int>(blockIdx.x * blockDim.x) + t;
  part[t] = i < n ? x[i] : 0.0f;
  DC_SYNC();
  for (int half = static_cast<int>(blockDim.x) / 2; half > 0; half /= 2) {
    if (t < half) part[t] += part[t + half];
    DC_SYNC();
  }
  if (t == 0) out[blockIdx.x] = part[0];
}

// The same by shuffles: within warps, then over the warps' sums.
template <typename T>
DC_DEVICE T warp_sum(T value) {
  for (int delta = warpSize / 2; delta > 0; delta /= 2) value += __shfl_down_sync(cuda::kFullMask, value, delta);
  return value;
}
template <typename T>
DC_GLOBAL void sum_shuffle(const float* x, float* out, int n) {
  DC_SHARED(T, sums, kMaxBlock / 32);
  const int t = static_cast<int>(threadIdx.x), i = static_cast<int>(blockIdx.x * blockDim.x) + t;
  const T sum = warp_sum<T>(i < n ? static_cast<T>(x[i]) : T{0});
  if (t % warpSize == 0) sums[t / warpSize] = sum;
  DC_SYNC();
  if (t >= warpSize) return;
  const T total = warp_sum<T>(t < static_cast<int>(blockDim.x) / warpSize ? sums[t] : T{0});
  if (t == 0) out[blockIdx.x] = static_cast<float>(total);
}

// out = the positive entries of x in order, then zeros. One block, n <= its threads.
DC_GLOBAL void compact(const float* x, float* out, int n) {
  DC_SHARED(int, offsets, kMaxBlock / 32);
  const int t = static_cast<int>(threadIdx.x), lane = t % warpSize, warp = t / warpSize;
  const bool keep = t < n && x[t] > 0.0f;
  const unsigned kept = __ballot_sync(cuda::kFullMask, keep);
  if (lane == 0) offsets[warp] = __popc(kept);
  if (t < n) out[t] = 0.0f;
  DC_SYNC();
  int offset = 0;
  for (int before = 0; before < warp; ++before) offset += offsets[before];
  if (keep) out[offset + __popc(kept & ((1u << lane) - 1))] = x[t];
}

// out [cols, rows] = x [rows, cols] transposed, rows = blockDim.y, cols = blockDim.x, through dynamic shared memory.
DC_GLOBAL void transpose(const float* x, float* out, int) {
  DC_DYNAMIC_SHARED(float, tile);  // [rows, cols + 1]
  const unsigned cols = blockDim.x, rows = blockDim.y, t = threadIdx.y * cols + threadIdx.x;
  tile[threadIdx.y * (cols + 1) + threadIdx.x] = x[t];
  DC_SYNC();
  out[t] = tile[t % rows * (cols + 1) + t / rows];
}

// out [blockDim.x] = how many of x truncate to each bin, by atomics in shared memory. One block.
DC_GLOBAL void histogram(const float* x, float* out, int n) {
  DC_SHARED(unsigned, counts, kMaxBlock);
  counts[threadIdx.x] = 0;
  DC_SYNC();
  for (unsigned i = threadIdx.x; i < static_cast<unsigned>(n); i += blockDim.x)
    atomicAdd(&counts[static_cast<unsigned>(x[i])], 1u);
  DC_SYNC();
  out[threadIdx.x] = static_cast<float>(counts[threadIdx.x]);
}

// out[t] = sum over the thread's half warp; the halves take different branches and meet only among themselves.
DC_GLOBAL void half_warps(const float* x, float* out, int) {
  const unsigned t = threadIdx.x;
  const bool upper = t % 32 >= 16;
  const unsigned mask = upper ? 0xffff0000u : 0x0000ffffu;
  float value = x[t];
  if (upper) {
    for (int delta = 8; delta > 0; delta /= 2) value += __shfl_xor_sync(mask, value, delta, 16);
  } else {
    for (int delta = 1; delta < 16; delta *= 2) value += __shfl_xor_sync(mask, value, delta, 16);
  }
  out[t] = value;
}

// out[t] = lanes of the full ballot + those of an earlier one between lanes 0 and 31, which come late to the full one.
DC_GLOBAL void nested_masks(const float*, float* out, int) {
  const unsigned t = threadIdx.x, pair = 0x80000001u;
  const int early = t == 0 || t == 31 ? __popc(__ballot_sync(pair, 1)) : 0;
  out[t] = static_cast<float>(early + __popc(__ballot_sync(cuda::kFullMask, 1)));
}

// out[t] = x[0] + .. + x[t] within each warp; lanes pass values by way of shared memory and DC_SYNCWARP.
DC_GLOBAL void scan_warp(const float* x, float* out, int) {
  DC_SHARED(float, sums, kMaxBlock);
  const int t = static_cast<int>(threadIdx.x), lane = t % warpSize;
  sums[t] = x[t];
  for (int delta = 1; delta < warpSize; delta *= 2) {
    DC_SYNCWARP(cuda::kFullMask);
    const float before = lane >= delta ? sums[t - delta] : 0.0f;
    DC_SYNCWARP(cuda::kFullMask);
    sums[t] += before;
  }
  out[t] = sums[t];
}

// out[0 .. 6] = any, all, block counts of true and false, block or and and, of x > 0; x of the last lane but one. One
// warp.
DC_GLOBAL void votes(const float* x, float* out, int) {
  const bool positive = x[threadIdx.x] > 0.0f;
  const int any = __any_sync(cuda::kFullMask, positive), all = __all_sync(cuda::kFullMask, positive);
  const int count = __syncthreads_count(positive), rest = __syncthreads_count(!positive);
  const int either = __syncthreads_or(positive), both = __syncthreads_and(positive);
  const double shifted = __shfl_up_sync(cuda::kFullMask, static_cast<double>(x[threadIdx.x]), 1);
  const float last = static_cast<float>(__shfl_sync(cuda::kFullMask, shifted, 31));
  if (threadIdx.x != 0) return;
  const float results[] = {float(any != 0),    float(all != 0),  float(count), float(rest),
                           float(either != 0), float(both != 0), last};
  for (int i = 0; i < 7; ++i) out[i] = results[i];
}

// out [4, 32] = x by each kind of shuffle within segments of 8 lanes: lane 10 of the caller's segment (10 mod 8 = 2),
// 3 lanes up, 3 lanes down, and the lane whose number differs in bits 1 and 3. One warp.
DC_GLOBAL void shuffles(const float* x, float* out, int) {
  const unsigned t = threadIdx.x;
  out[t] = __shfl_sync(cuda::kFullMask, x[t], 10, 8);
  out[32 + t] = __shfl_up_sync(cuda::kFullMask, x[t], 3, 8);
  out[64 + t] = __shfl_down_sync(cuda::kFullMask, x[t], 3, 8);
  out[96 + t] = __shfl_xor_sync(cuda::kFullMask, x[t], 10, 8);
}

// out[i] = when thread i of the grid had its turn; the count, which starts at 0, is the entry after the last.
DC_GLOBAL void order(const float*, float* out, int) {
  out[blockIdx.x * blockDim.x + threadIdx.x] = atomicAdd(&out[gridDim.x * blockDim.x], 1.0f);
}

// out = x, four floats at a time.
DC_GLOBAL void copy_vectors(const float* x, float* out, int n) {
  const int i = 4 * static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) cuda::store_vec<4>(out + i, cuda::load_vec<4>(x + i));
}

// out[1 + block] = the block's sum; the last block to arrive adds them up in order: out[0]. x[0] .. of one warp a
// block.
DC_GLOBAL void last_block(const float* x, float* out, int) {
  DC_SHARED(int, last, 1);
  auto* const arrived = reinterpret_cast<unsigned*>(out + 1 + gridDim.x);  // 0 at the start
  const float sum = warp_sum(x[blockIdx.x * blockDim.x + threadIdx.x]);
  if (threadIdx.x == 0) {
    out[1 + blockIdx.x] = sum;
    __threadfence();
    last[0] = atomicInc(arrived, gridDim.x - 1) == gridDim.x - 1;
  }
  DC_SYNC();
  if (last[0] == 0) return;
  const float total = warp_sum(threadIdx.x < gridDim.x ? out[1 + threadIdx.x] : 0.0f);
  if (threadIdx.x == 0) out[0] = total;
}

// Each thread waits for its turn, counted by atomics: out[t] = t. Ends only if a spinning thread lets the others on.
DC_GLOBAL void take_turns(const float*, float* out, int) {
  DC_SHARED(unsigned, turn, 1);
  if (threadIdx.x == 0) turn[0] = 0;
  DC_SYNC();
  while (atomicAdd(turn, 0u) < threadIdx.x) {
  }
  out[threadIdx.x] = static_cast<float>(atomicAdd(turn, 1u));
}

// out[0 .. 4]: the remaining atomics, from all threads at once: max, min, or, exchanges that hit zero, CAS successes.
DC_GLOBAL void atomics(const float* x, float* out, int) {
  DC_SHARED(int, signed_cells, 2);
  DC_SHARED(unsigned, cells, 3);
  DC_SHARED(double, real, 1);
  const unsigned t = threadIdx.x;
  if (t == 0) {
    signed_cells[0] = signed_cells[1] = 0;
    cells[0] = cells[1] = cells[2] = 0;
    real[0] = 0.0;
  }
  DC_SYNC();
  const int value = static_cast<int>(x[t]);
  atomicMax(&signed_cells[0], value);
  atomicMin(&signed_cells[1], value);
  atomicOr(&cells[0], 1u << t % 32);
  if (atomicExch(&cells[1], 1u) == 0) atomicAdd(real, 0.5);
  if (atomicCAS(&cells[2], 0u, t + 1) == 0) atomicAdd(real, 0.25);
  DC_SYNC();
  if (t != 0) return;
  out[0] = static_cast<float>(signed_cells[0]);
  out[1] = static_cast<float>(signed_cells[1]);
  out[2] = static_cast<float>(__popc(cells[0]));
  out[3] = static_cast<float>(real[0]);
  out[4] = static_cast<float>(__ffs(8) + 10 * __clz(1) + 1000 * __popcll(~0ull));
}

}  // namespace deepclust::selftest
