// Which instructions for products of codes the level in use has. DEEPCLUST_NO_INT8 in the environment answers no: tests
// set it to try the other ways. Ask once in a call, for memory is laid out by the answer.
#pragma once

#include <cstdlib>

#include "../simd/level.h"

namespace deepclust::cpu {

// For 8-bit codes: vpdpbusd in the level's registers, of 64 bytes (AVX-512 VNNI) or of 32 (AVX-VNNI).
inline bool have_int8_tile() {
#if defined(DC_LEVELS)
  static const bool present = simd_level() == Level::avx512
                                  ? __builtin_cpu_supports("avx512vnni") != 0
                                  : simd_level() == Level::avx2 && __builtin_cpu_supports("avxvnni") != 0;
  return present && std::getenv("DEEPCLUST_NO_INT8") == nullptr;
#else
  return false;
#endif
}

// For 16-bit codes, which every level below avx512 has.
inline bool have_int16_tile() {
#if defined(__x86_64__) && defined(__GNUC__)
  return simd_level() != Level::avx512 && std::getenv("DEEPCLUST_NO_INT8") == nullptr;
#else
  return false;
#endif
}

}  // namespace deepclust::cpu
