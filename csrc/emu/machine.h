// The emulated device: launches a kernel block after block, each CUDA thread on a fiber, in an order the caller sets.
//
// One system thread does everything, so a run is repeatable: the same schedule and seed give the same interleaving.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>
#include <string>

#include "error.h"

struct uint3 {
  unsigned x, y, z;
};

// As CUDA's, but a size that does not fit into 32 bits is kept until the launch refuses it, not cut.
struct dim3 {
  long long x = 1, y = 1, z = 1;
  constexpr dim3(long long x_ = 1, long long y_ = 1, long long z_ = 1) : x(x_), y(y_), z(z_) {}
};

namespace deepclust::emu {

// The order in which threads run between two waits, and blocks run in a grid. Forward, reverse and random give every
// thread its turn; random also switches at atomics and warp functions. The eager ones let one warp go on to the next
// barrier before another may start: what it overwrites there too early is then seen by all others.
enum class Schedule { kForward, kReverse, kRandom, kEager, kEagerReverse };
void set_schedule(Schedule schedule, std::uint64_t seed = 0);

// Switches and atomics that one block may use up; more is taken for a spin that never ends.
inline constexpr long long kDefaultStepLimit = 1LL << 24;
void set_step_limit(long long steps);

// What every GPU gives a block without an opt-in.
inline constexpr long long kMaxThreads = 1024;
inline constexpr long long kMaxSharedBytes = 48 << 10;
inline constexpr std::size_t kSharedAlign = 16;

struct LaunchConfig {
  const char* kernel;
  std::source_location where;
  dim3 grid;
  dim3 block;
  long long dynamic_bytes;
};
using ThreadBody = void (*)(void* argument);
// Runs body(argument) once per CUDA thread. Throws EmulationError, naming kernel, block and thread.
void launch(const LaunchConfig& config, ThreadBody body, void* argument);

// What threadIdx and its like refer to: the thread that runs now.
struct Position {
  uint3 thread, block, block_size, grid_size;
};
extern Position position;

// For code that runs inside a kernel.
[[noreturn]] void fail(const std::string& problem);
void* shared_array(const void* site, std::size_t bytes, const char* name);
void* dynamic_shared();
// Where the random schedule may switch and a spin is counted: `function` at `where` is about to touch memory.
void switch_point(const char* function, const std::source_location& where);

// "csrc/cuda/joint_kernel.cuh:120"
std::string place(const char* file, unsigned line);

}  // namespace deepclust::emu
