#include "machine.h"

#include <algorithm>
#include <random>
#include <vector>

#include "block.h"
#include "stack_guard.h"

namespace deepclust::emu {
namespace {

constexpr long long kMaxGridX = (1LL << 31) - 1;
constexpr long long kMaxGridYZ = 65535;
// A launch that a GPU takes and this machine does not: at a microsecond a thread it would never end.
constexpr long long kMaxEmulatedBlocks = 1LL << 24;

Schedule schedule = Schedule::kForward;
std::mt19937_64 random_bits;
long long limit = kDefaultStepLimit;
Block* running = nullptr;

void check(const LaunchConfig& config) {
  const auto refuse = [&](const std::string& problem) {
    throw EmulationError("kernel '" + std::string(config.kernel) + "' (launched at " +
                         place(config.where.file_name(), config.where.line()) + "): " + problem);
  };
  const auto in_range = [&](const char* name, long long value, long long most) {
    if (value < 1 || value > most)
      refuse("'" + std::string(name) + "' must be in [1, " + std::to_string(most) + "], got " + std::to_string(value));
  };
  if (running != nullptr) refuse("a kernel cannot launch a kernel");
  in_range("grid.x", config.grid.x, kMaxGridX);
  in_range("grid.y", config.grid.y, kMaxGridYZ);
  in_range("grid.z", config.grid.z, kMaxGridYZ);
  in_range("block.x", config.block.x, kMaxThreads);
  in_range("block.y", config.block.y, kMaxThreads);
  in_range("block.z", config.block.z, 64);
  in_range("block.x * block.y * block.z", config.block.x * config.block.y * config.block.z, kMaxThreads);
  // In two steps: all three at once do not fit into 64 bits.
  in_range("blocks of an emulated grid", config.grid.x * config.grid.y, kMaxEmulatedBlocks);
  in_range("blocks of an emulated grid", config.grid.x * config.grid.y * config.grid.z, kMaxEmulatedBlocks);
  if (config.dynamic_bytes < 0 || config.dynamic_bytes > kMaxSharedBytes)
    refuse("dynamic shared memory must be in [0, " + std::to_string(kMaxSharedBytes) + "] bytes, got " +
           std::to_string(config.dynamic_bytes));
}

uint3 narrow(const dim3& size) {
  return {static_cast<unsigned>(size.x), static_cast<unsigned>(size.y), static_cast<unsigned>(size.z)};
}

// The grid's blocks in the schedule's order.
std::vector<unsigned> block_order(const LaunchConfig& config) {
  std::vector<unsigned> order(static_cast<std::size_t>(config.grid.x * config.grid.y * config.grid.z));
  for (unsigned i = 0; i < order.size(); ++i) order[i] = i;
  if (schedule == Schedule::kReverse || schedule == Schedule::kEagerReverse) std::reverse(order.begin(), order.end());
  if (schedule == Schedule::kRandom)
    for (std::size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[random_bits() % i]);
  return order;
}

struct Running {
  explicit Running(Block& block) { running = &block; }
  ~Running() { running = nullptr; }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
};

}  // namespace

Position position;

void set_schedule(Schedule schedule_, std::uint64_t seed) {
  schedule = schedule_;
  random_bits.seed(seed);
}

void set_step_limit(long long steps) {
  if (steps < 1)
    throw std::invalid_argument("set_step_limit: 'steps' must be at least 1, got " + std::to_string(steps));
  limit = steps;
}

long long step_limit() {
  return limit;
}

Block& running_block() {
  if (running == nullptr) throw EmulationError("a device function was called outside a kernel");
  return *running;
}

Block* block_or_null() {
  return running;
}

void launch(const LaunchConfig& config, ThreadBody body, void* argument) {
  check(config);
  const StackGuard guard;
  position.block_size = narrow(config.block);
  position.grid_size = narrow(config.grid);
  for (const unsigned index : block_order(config)) {
    const unsigned width = position.grid_size.x;
    const unsigned height = position.grid_size.y;
    position.block = {index % width, index / width % height, index / width / height};
    Block block(config, position.block, schedule, random_bits);
    const Running scope(block);
    block.run(body, argument);
  }
}

void fail(const std::string& problem) {
  throw EmulationError(running_block().context() + ": " + problem);
}

void* shared_array(const void* site, std::size_t bytes, const char* name) {
  return running_block().shared(site, bytes, name);
}

void* dynamic_shared() {
  return running_block().dynamic_shared();
}

void switch_point(const char* function, const std::source_location& where) {
  Block& block = running_block();
  block.maybe_switch();
  block.count_step(function, where);
}

}  // namespace deepclust::emu
