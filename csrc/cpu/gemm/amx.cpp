#include "amx.h"

#if defined(DC_AMX)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace deepclust::cpu {
#if defined(DC_AMX)
namespace {

// A process has to ask for the memory that the system keeps a thread's tiles in.
bool ask_system() {
  constexpr long kAskPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-int8") &&
         __builtin_cpu_supports("amx-bf16") && syscall(SYS_arch_prctl, kAskPermission, kTileData) == 0;
}

}  // namespace

bool have_amx() {
  static const bool present = simd_level() == Level::avx512 && ask_system();
  return present && have_int8_tile() && std::getenv("DEEPCLUST_NO_AMX") == nullptr;
}
#else
bool have_amx() {
  return false;
}
#endif

}  // namespace deepclust::cpu

// For the Python side.
extern "C" __attribute__((visibility("default"))) int deepclust_have_amx() {
  return deepclust::cpu::have_amx() ? 1 : 0;
}
