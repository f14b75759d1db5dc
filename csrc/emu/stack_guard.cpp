#include "stack_guard.h"

#include <unistd.h>

#include <cstdlib>
#include <string>

#include "block.h"

namespace deepclust::emu {

#if defined(DC_EMU_ASAN)

StackGuard::StackGuard() = default;
StackGuard::~StackGuard() = default;

#else

namespace {

constexpr std::size_t kHandlerBytes = std::size_t{64} << 10;
alignas(16) std::byte handler_stack[kHandlerBytes];  // the fiber's own stack is the one that is full
struct sigaction previous;

void on_fault(int signal, siginfo_t* info, void*) {
  Block* const block = block_or_null();
  if (block != nullptr && block->running() && block->self().fiber->guards(info->si_addr)) {
    // More than a signal handler is promised, but the process ends here and the message is worth the attempt.
    const std::string text =
        block->context() + ": stack overflow, more than " + std::to_string(kStackBytes) + " bytes for one thread\n";
    if (write(STDERR_FILENO, text.data(), text.size()) < 0) _exit(EXIT_FAILURE);
    std::abort();
  }
  // Not ours: the instruction faults again under the handler that was there before.
  sigaction(signal, &previous, nullptr);
}

}  // namespace

StackGuard::StackGuard() {
  stack_t stack{};
  stack.ss_sp = handler_stack;
  stack.ss_size = kHandlerBytes;
  sigaltstack(&stack, &old_stack_);
  struct sigaction action{};
  action.sa_sigaction = &on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  sigaction(SIGSEGV, &action, &old_action_);
  previous = old_action_;
}

StackGuard::~StackGuard() {
  sigaction(SIGSEGV, &old_action_, nullptr);
  sigaltstack(&old_stack_, nullptr);
}

#endif

}  // namespace deepclust::emu
