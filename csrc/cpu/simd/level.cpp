#include "level.h"

#include <cstdlib>
#include <cstring>

namespace deepclust::cpu {
namespace {

constexpr const char* kNames[] = {"base", "avx2", "avx512"};

Level best_level() {
#if defined(DC_LEVELS)
  if (__builtin_cpu_supports("x86-64-v4")) return Level::avx512;
  if (__builtin_cpu_supports("x86-64-v3")) return Level::avx2;
#endif
  return Level::base;
}

// The level in use, or what is wrong with the one asked for: an exception here would end the process.
struct Choice {
  Level level = best_level();
  const char* problem = nullptr;

  Choice() {
    const char* asked = std::getenv("DEEPCLUST_SIMD");
    if (asked == nullptr || *asked == '\0') return;
    for (const Level known : {Level::base, Level::avx2, Level::avx512}) {
      if (std::strcmp(asked, kNames[static_cast<int>(known)]) != 0) continue;
      if (known > level)
        problem = "missing";
      else
        level = known;
      return;
    }
    problem = "unknown";
  }
};

const Choice& choice() {
  static const Choice chosen;
  return chosen;
}

}  // namespace

Level simd_level() {
  static const Level level = choice().level;
  return level;
}

}  // namespace deepclust::cpu

// For the Python side, which raises: the level in use; and "unknown" or "missing" where DEEPCLUST_SIMD asks for one
// that does not exist, or that this processor does not have, else an empty string.
extern "C" __attribute__((visibility("default"))) const char* deepclust_simd_level() {
  return deepclust::cpu::kNames[static_cast<int>(deepclust::cpu::simd_level())];
}
extern "C" __attribute__((visibility("default"))) const char* deepclust_simd_problem() {
  const char* problem = deepclust::cpu::choice().problem;
  return problem == nullptr ? "" : problem;
}
