#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <new>

#if defined(DC_EMU_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#if !defined(DC_EMU_UCONTEXT)
// Saves what a callee must keep, and the stack pointer in *from; then the same backwards from `to`.
extern "C" void deepclust_emu_switch(void** from, void* to);
asm(R"(
.text
.globl deepclust_emu_switch
.hidden deepclust_emu_switch
.type deepclust_emu_switch, @function
deepclust_emu_switch:
  endbr64
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size deepclust_emu_switch, .-deepclust_emu_switch
)");
#endif

namespace deepclust::emu {
namespace {

std::size_t page_bytes() {
  static const std::size_t bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

Fiber* entering = nullptr;  // a new stack cannot be passed an argument in a portable way

}  // namespace

Fiber::Fiber() {
  void* memory = mmap(nullptr, page_bytes() + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  memory_ = static_cast<std::byte*>(memory);
  if (mprotect(memory_, page_bytes(), PROT_NONE) != 0) {
    munmap(memory_, page_bytes() + kStackBytes);
    throw std::bad_alloc();
  }
  stack_ = memory_ + page_bytes();
  prepare();
}

Fiber::~Fiber() {
  abandon();
  munmap(memory_, page_bytes() + kStackBytes);
}

void Fiber::prepare() {
#if defined(DC_EMU_UCONTEXT)
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_;
  context_.uc_stack.ss_size = kStackBytes;
  context_.uc_link = nullptr;
  makecontext(&context_, &Fiber::enter, 0);
#else
  // What the switch pops: six registers, then the address it returns to. A called function finds the stack 8 bytes off
  // a 16-byte bound, where its caller's return address lies: a zero here, which also ends a debugger's backtrace.
  auto** top = reinterpret_cast<void**>(stack_ + kStackBytes);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&Fiber::enter);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  context_ = top;
#endif
  fake_stack_ = nullptr;
}

void Fiber::start(Job job, void* argument) {
  job_ = job;
  argument_ = argument;
}

void Fiber::resume() {
  entering = this;
  dirty_ = true;
#if defined(DC_EMU_ASAN)
  void* own_fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&own_fake_stack, stack_, kStackBytes);
#endif
#if defined(DC_EMU_UCONTEXT)
  swapcontext(&scheduler_, &context_);
#else
  deepclust_emu_switch(&scheduler_, context_);
#endif
#if defined(DC_EMU_ASAN)
  __sanitizer_finish_switch_fiber(own_fake_stack, nullptr, nullptr);
#endif
}

void Fiber::switch_out() {
#if defined(DC_EMU_ASAN)
  __sanitizer_start_switch_fiber(&fake_stack_, scheduler_stack_, scheduler_stack_bytes_);
#endif
#if defined(DC_EMU_UCONTEXT)
  swapcontext(&context_, &scheduler_);
#else
  deepclust_emu_switch(&context_, scheduler_);
#endif
#if defined(DC_EMU_ASAN)
  __sanitizer_finish_switch_fiber(fake_stack_, &scheduler_stack_, &scheduler_stack_bytes_);
#endif
}

void Fiber::suspend() {
  switch_out();
}

void Fiber::enter() {
  Fiber* const self = entering;
#if defined(DC_EMU_ASAN)
  __sanitizer_finish_switch_fiber(self->fake_stack_, &self->scheduler_stack_, &self->scheduler_stack_bytes_);
#endif
  for (;;) {
    self->job_(self->argument_);
    self->job_ = nullptr;
    self->switch_out();
  }
}

void Fiber::abandon() {
  if (!dirty_) return;
#if defined(DC_EMU_ASAN)
  // Frames that never return leave their red zones behind.
  __asan_unpoison_memory_region(stack_, kStackBytes);
#endif
  job_ = nullptr;
  dirty_ = false;
  prepare();
}

bool Fiber::guards(const void* address) const {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  const auto guard = reinterpret_cast<std::uintptr_t>(memory_);
  return at >= guard && at < guard + page_bytes();
}

}  // namespace deepclust::emu
