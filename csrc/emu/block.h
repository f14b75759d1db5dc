// The state of the block that runs now, shared by the scheduler, the barriers and the warp functions. Internal.
#pragma once

#include <exception>
#include <memory>
#include <new>
#include <random>
#include <source_location>
#include <string>
#include <vector>

#include "barrier.h"
#include "fiber.h"
#include "machine.h"
#include "warp.h"

namespace deepclust::emu {

enum class State { kReady, kAtBarrier, kInWarp, kReturned };

struct PendingCopy {
  void* to;
  const void* from;
  std::size_t bytes;
};

struct Thread {
  Fiber* fiber = nullptr;
  uint3 index{};
  State state = State::kReady;
  const BarrierSite* barrier = nullptr;  // kAtBarrier
  WarpCall call{};                       // kInWarp
  std::uint64_t result = 0;              // of the last warp function
  int patience = 0;                      // atomics since the thread was last switched in
  std::vector<PendingCopy> copies{};     // started, not waited for
};

// What the lanes of a warp are doing.
struct LaneMasks {
  unsigned in_warp = 0;  // waiting in a warp function
  unsigned returned = 0;
  int turn = 0;  // eager schedules: lanes picked so far
};

class Block {
 public:
  Block(const LaunchConfig& config, uint3 index, Schedule schedule, std::mt19937_64& random);
  ~Block();
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  void run(ThreadBody body, void* argument);

  // For a thread's own functions.
  Thread& self() { return threads_[static_cast<std::size_t>(current_)]; }
  int current() const { return current_; }
  int size() const { return static_cast<int>(threads_.size()); }
  Thread& thread(int index) { return threads_[static_cast<std::size_t>(index)]; }
  const LaneMasks& lanes(int index) const { return lanes_[static_cast<std::size_t>(index / kWarpSize)]; }
  void make_ready(int index);
  void wait(State state);  // gives up the processor until make_ready
  void maybe_switch();     // under the random schedule, half of the time
  void count_step(const char* function, const std::source_location& where);
  void vote(bool predicate) { votes_ += predicate ? 1 : 0; }  // on the way into a barrier
  int opened_votes() const { return opened_votes_; }          // after it: how many said true
  void* shared(const void* site, std::size_t bytes, const char* name);
  void* dynamic_shared() { return dynamic_.get(); }
  bool running() const { return current_ >= 0; }
  // "kernel 'mi_loss' (launched at a.cpp:3), block (0, 0, 0), thread (5, 0, 0)"
  std::string context() const;

 private:
  struct FreeAligned {
    void operator()(void* memory) const { ::operator delete(memory, std::align_val_t{kSharedAlign}); }
  };
  using Memory = std::unique_ptr<void, FreeAligned>;
  struct SharedArray {
    const void* site;
    Memory memory;
  };

  static void enter(void* block);
  void set_state(int index, State state);
  static Memory poisoned(std::size_t bytes);
  int pick();
  int pick_eagerly();
  void first_warp();
  bool eager() const { return schedule_ == Schedule::kEager || schedule_ == Schedule::kEagerReverse; }
  void open_barrier();
  void on_return();
  std::string waiting() const;
  [[noreturn]] void stuck(const std::string& problem) const;

  const LaunchConfig& config_;
  const uint3 index_;
  const Schedule schedule_;
  std::mt19937_64& random_;
  std::vector<Thread> threads_;
  std::vector<LaneMasks> lanes_;  // a warp each
  std::vector<int> ready_;        // kRandom: who can run
  int cursor_ = 0;                // otherwise: where the search for the next thread starts
  int warp_ = 0;                  // eager: whose turn it is
  int current_ = -1;
  int votes_ = 0;
  int opened_votes_ = 0;
  long long steps_ = 0;
  long long shared_bytes_ = 0;
  std::vector<SharedArray> shared_;
  Memory dynamic_;
  ThreadBody body_ = nullptr;
  void* argument_ = nullptr;
  std::exception_ptr failure_;
};

// The block that runs now; running_block fails outside a kernel.
Block& running_block();
Block* block_or_null();
long long step_limit();

}  // namespace deepclust::emu
