// Products of 8-bit codes on x86: one instruction does 64 multiply-adds into int32, where a float one does 16.
#pragma once

#include <cstdlib>

#include "../simd/level.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define DC_VNNI __attribute__((target("avx512f,avx512bw,avx512vnni")))
#endif

namespace deepclust::cpu {

// Whether this processor has the instruction for registers of 64 bytes, and DEEPCLUST_NO_INT8 is not set (tests set it
// to try the other ways).
inline bool have_vnni() {
#if defined(DC_VNNI)
  static const bool present = simd_level() == Level::avx512 && __builtin_cpu_supports("avx512vnni");
  return present && std::getenv("DEEPCLUST_NO_INT8") == nullptr;
#else
  return false;
#endif
}

// The same for registers of 32 bytes, where the level has no longer ones: gemm/int16_tile.cpp multiplies by it.
inline bool have_avx_vnni() {
#if defined(DC_LEVELS)
  static const bool present = simd_level() == Level::avx2 && __builtin_cpu_supports("avxvnni");
  return present && std::getenv("DEEPCLUST_NO_INT8") == nullptr;
#else
  return false;
#endif
}

#if defined(DC_VNNI)
// sum += u * s, four codes a lane: u unsigned, s signed. In place by force: g++ 12 copies the accumulators of the
// intrinsic about in every step, which makes a tile take twice as long.
DC_VNNI DC_INLINE void multiply_add(__m512i& sum, const __m512i& u, const __m512i& s) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u), "v"(s));
}
#endif

}  // namespace deepclust::cpu
