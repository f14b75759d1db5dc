// A fiber: a stack of its own, and the switch between it and the scheduler. One system thread runs them all.
//
// The switch is a few instructions on x86-64 and ucontext elsewhere (or with -DDC_EMU_UCONTEXT), whose two system calls
// make it ten times slower. A guard page lies below every stack, so that a kernel which needs more than kStackBytes
// stops there and not in the memory of its neighbour.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) && !defined(DC_EMU_UCONTEXT)
#define DC_EMU_UCONTEXT
#endif

#if defined(DC_EMU_ASAN)  // said to the files that are not watched themselves
#elif defined(__SANITIZE_ADDRESS__)
#define DC_EMU_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define DC_EMU_ASAN 1
#endif
#endif

#if defined(DC_EMU_UCONTEXT)
#include <ucontext.h>
#endif

namespace deepclust::emu {

#if defined(DC_EMU_ASAN)
inline constexpr std::size_t kStackBytes = std::size_t{256} << 10;  // red zones make frames several times larger
#else
inline constexpr std::size_t kStackBytes = std::size_t{64} << 10;
#endif

class Fiber {
 public:
  using Job = void (*)(void* argument);

  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Gives an idle fiber its next job; `job` returns normally and lets no exception out.
  void start(Job job, void* argument);
  // From the scheduler: runs the fiber until it suspends or its job returns.
  void resume();
  // From inside the fiber: back to the scheduler.
  void suspend();
  // Drops what is on the stack, whose job will never be resumed; objects there are not destroyed.
  void abandon();
  bool idle() const { return job_ == nullptr; }
  // Whether `address` lies in the guard page below the stack.
  bool guards(const void* address) const;

 private:
  static void enter();
  void prepare();
  void switch_out();

  std::byte* memory_ = nullptr;  // the guard page, then the stack
  std::byte* stack_ = nullptr;
  Job job_ = nullptr;
  void* argument_ = nullptr;
  bool dirty_ = false;  // the stack holds a suspended job
#if defined(DC_EMU_UCONTEXT)
  ucontext_t context_;
  ucontext_t scheduler_;
#else
  void* context_ = nullptr;
  void* scheduler_ = nullptr;
#endif
  void* fake_stack_ = nullptr;  // the sanitizer's, of whichever side is not running
  const void* scheduler_stack_ = nullptr;
  std::size_t scheduler_stack_bytes_ = 0;
};

}  // namespace deepclust::emu
