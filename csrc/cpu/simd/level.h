// One binary for every x86-64: a leaf kernel is compiled once per level, and the level is chosen when the library is
// loaded. DEEPCLUST_SIMD=base|avx2|avx512 in the environment holds it to one.
//
// A kernel is a struct whose static `run<L>(...)` is DC_INLINE, with L one of the levels below; `dispatch<Kernel>(...)`
// calls it as compiled for the level in use. Whatever it calls must be DC_INLINE too (a lambda DC_INLINE_LAMBDA): a
// callee that is not inlined is compiled for the oldest processor, forty times slower.
#pragma once

#include <cstdint>
#include <utility>

#include "../../common/macros.h"

#if defined(__x86_64__) && !defined(__clang__) && defined(__GNUC__) && __GNUC__ >= 12 && !defined(DC_ONE_LEVEL)
#define DC_LEVELS 1
#endif

namespace deepclust::cpu {

enum class Level { base, avx2, avx512 };

// base is what every x86-64 has, or all there is on other processors. Registers: how wide, and how many.
struct Base {
  static constexpr Level kLevel = Level::base;
  static constexpr int64_t kRegisterBytes = 16;
};
struct Avx2 {
  static constexpr Level kLevel = Level::avx2;
  static constexpr int64_t kRegisterBytes = 32;
};
struct Avx512 {
  static constexpr Level kLevel = Level::avx512;
  static constexpr int64_t kRegisterBytes = 64;
};

// The level in use: the best of this processor, or what DEEPCLUST_SIMD asks for. The same for the life of the process.
Level simd_level();

template <typename Kernel, typename... Args>
auto run_base(Args&&... args) {
  return Kernel::template run<Base>(std::forward<Args>(args)...);
}
#if defined(DC_LEVELS)
template <typename Kernel, typename... Args>
__attribute__((target("arch=x86-64-v3"))) auto run_avx2(Args&&... args) {
  return Kernel::template run<Avx2>(std::forward<Args>(args)...);
}
template <typename Kernel, typename... Args>
__attribute__((target("arch=x86-64-v4"))) auto run_avx512(Args&&... args) {
  return Kernel::template run<Avx512>(std::forward<Args>(args)...);
}
#endif

template <typename Kernel, typename... Args>
auto dispatch(Args&&... args) {
#if defined(DC_LEVELS)
  switch (simd_level()) {
    case Level::avx512: return run_avx512<Kernel>(std::forward<Args>(args)...);
    case Level::avx2: return run_avx2<Kernel>(std::forward<Args>(args)...);
    case Level::base: break;
  }
#endif
  return run_base<Kernel>(std::forward<Args>(args)...);
}

}  // namespace deepclust::cpu
