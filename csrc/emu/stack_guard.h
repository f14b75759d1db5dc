// Turns a step into the guard page below a fiber's stack into a message that names the kernel and the thread.
//
// There is no way back from it: the process ends. The handler stands for the time of a launch alone, so that whoever
// had one before keeps it. Under ASan nothing is installed: it tells a stack overflow by itself.
#pragma once

#include <signal.h>

#include "fiber.h"

namespace deepclust::emu {

class StackGuard {
 public:
  StackGuard();
  ~StackGuard();
  StackGuard(const StackGuard&) = delete;
  StackGuard& operator=(const StackGuard&) = delete;

 private:
#if !defined(DC_EMU_ASAN)
  stack_t old_stack_{};
  struct sigaction old_action_{};
#endif
};

}  // namespace deepclust::emu
