#include "block.h"

#include <algorithm>
#include <cstring>
#include <map>

namespace deepclust::emu {
namespace {

// Atomics that a thread may do in a row under all schedules but the random one, so that a spin lets others on.
constexpr int kPatience = 64;

std::string triple(const uint3& index) {
  return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " + std::to_string(index.z) + ")";
}

// Stacks outlive their blocks: making one costs several system calls.
Fiber* pooled_fiber(std::size_t index) {
  static std::vector<std::unique_ptr<Fiber>> fibers;
  while (fibers.size() <= index) fibers.push_back(std::make_unique<Fiber>());
  return fibers[index].get();
}

}  // namespace

Block::Block(const LaunchConfig& config, uint3 index, Schedule schedule, std::mt19937_64& random)
    : config_(config),
      index_(index),
      schedule_(schedule),
      random_(random),
      threads_(static_cast<std::size_t>(config.block.x * config.block.y * config.block.z)),
      lanes_((threads_.size() + kWarpSize - 1) / kWarpSize),
      shared_bytes_(config.dynamic_bytes),
      dynamic_(poisoned(static_cast<std::size_t>(config.dynamic_bytes))) {
  const auto width = static_cast<unsigned>(config.block.x);
  const auto height = static_cast<unsigned>(config.block.y);
  for (unsigned i = 0; i < threads_.size(); ++i) {
    threads_[i].fiber = pooled_fiber(i);
    threads_[i].index = {i % width, i / width % height, i / width / height};
  }
}

Block::~Block() {
  for (Thread& thread : threads_)
    if (!thread.fiber->idle()) thread.fiber->abandon();
}

// All ones: NaN as a half, a float and a double, -1 as an integer. Exactly sized, so that ASan sees a step beyond.
Block::Memory Block::poisoned(std::size_t bytes) {
  Memory memory(::operator new(bytes, std::align_val_t{kSharedAlign}));
  std::memset(memory.get(), 0xff, bytes);
  return memory;
}

void* Block::shared(const void* site, std::size_t bytes, const char* name) {
  for (const SharedArray& array : shared_)
    if (array.site == site) return array.memory.get();
  shared_bytes_ += static_cast<long long>(bytes);
  if (shared_bytes_ > kMaxSharedBytes)
    fail("DC_SHARED array '" + std::string(name) + "' brings the block to " + std::to_string(shared_bytes_) +
         " bytes of shared memory, at most " + std::to_string(kMaxSharedBytes) + " are there");
  shared_.push_back({site, poisoned(bytes)});
  return shared_.back().memory.get();
}

std::string Block::context() const {
  std::string text = "kernel '" + std::string(config_.kernel) + "' (launched at " +
                     place(config_.where.file_name(), config_.where.line()) + "), block " + triple(index_);
  if (current_ >= 0) text += ", thread " + triple(threads_[static_cast<std::size_t>(current_)].index);
  return text;
}

void Block::enter(void* block_) {
  Block& block = *static_cast<Block*>(block_);
  try {
    block.body_(block.argument_);
  } catch (const EmulationError&) {
    block.failure_ = std::current_exception();
  } catch (const std::exception& error) {
    block.failure_ = std::make_exception_ptr(EmulationError(block.context() + ": " + error.what()));
  } catch (...) {
    block.failure_ = std::make_exception_ptr(EmulationError(block.context() + ": an exception left the kernel"));
  }
  block.set_state(block.current_, State::kReturned);
}

void Block::run(ThreadBody body, void* argument) {
  body_ = body;
  argument_ = argument;
  for (int i = 0; i < size(); ++i) {
    thread(i).fiber->start(&Block::enter, this);
    make_ready(i);
  }
  if (schedule_ == Schedule::kReverse) cursor_ = size() - 1;
  first_warp();
  int returned = 0;
  while (returned < size()) {
    current_ = pick();
    if (current_ < 0) {
      open_barrier();
      continue;
    }
    self().patience = kPatience;
    position.thread = self().index;
    if (++steps_ > step_limit()) stuck("no end after " + std::to_string(step_limit()) + " steps");
    self().fiber->resume();
    if (failure_) std::rethrow_exception(failure_);
    if (self().state == State::kReturned) {
      ++returned;
      on_return();
    } else if (self().state == State::kReady) {
      make_ready(current_);  // it stepped aside at a switch point
    }
  }
  current_ = -1;
}

int Block::pick() {
  if (schedule_ == Schedule::kRandom) {
    if (ready_.empty()) return -1;
    std::swap(ready_[random_() % ready_.size()], ready_.back());
    const int chosen = ready_.back();
    ready_.pop_back();
    return chosen;
  }
  if (eager()) return pick_eagerly();
  const int step = schedule_ == Schedule::kForward ? 1 : size() - 1;
  for (int tried = 0; tried < size(); ++tried) {
    const int chosen = cursor_;
    cursor_ = (cursor_ + step) % size();
    if (thread(chosen).state == State::kReady) return chosen;
  }
  return -1;
}

void Block::first_warp() {
  warp_ = schedule_ == Schedule::kEagerReverse ? static_cast<int>(lanes_.size()) - 1 : 0;
}

// A lane of the warp whose turn it is, lanes in rotation; another warp where all of its lanes wait.
int Block::pick_eagerly() {
  const bool forward = schedule_ == Schedule::kEager;
  const int warps = static_cast<int>(lanes_.size());
  for (int tried = 0; tried < warps; ++tried, warp_ = (warp_ + (forward ? 1 : warps - 1)) % warps) {
    const int first = warp_ * kWarpSize, count = std::min(kWarpSize, size() - first);
    int& turn = lanes_[static_cast<std::size_t>(warp_)].turn;
    for (int i = 0; i < count; ++i) {
      const int lane = (turn + i) % count, chosen = first + (forward ? lane : count - 1 - lane);
      if (thread(chosen).state != State::kReady) continue;
      turn = (lane + 1) % count;
      return chosen;
    }
  }
  return -1;
}

void Block::set_state(int index, State state) {
  thread(index).state = state;
  LaneMasks& lanes = lanes_[static_cast<std::size_t>(index / kWarpSize)];
  const unsigned lane = 1u << index % kWarpSize;
  lanes.in_warp = state == State::kInWarp ? lanes.in_warp | lane : lanes.in_warp & ~lane;
  lanes.returned = state == State::kReturned ? lanes.returned | lane : lanes.returned & ~lane;
}

void Block::make_ready(int index) {
  set_state(index, State::kReady);
  if (schedule_ == Schedule::kRandom) ready_.push_back(index);
}

void Block::wait(State state) {
  set_state(current_, state);
  self().fiber->suspend();
}

void Block::maybe_switch() {
  if (schedule_ == Schedule::kRandom && (random_() & 1) != 0) wait(State::kReady);
}

void Block::count_step(const char* function, const std::source_location& where) {
  if (++steps_ > step_limit())
    stuck("no end after " + std::to_string(step_limit()) + " steps: the thread spins at " + function + ", " +
          place(where.file_name(), where.line()));
  if (schedule_ == Schedule::kRandom || --self().patience > 0) return;
  if (eager()) warp_ = (warp_ + 1) % static_cast<int>(lanes_.size());  // whoever it spins for may be in any warp
  wait(State::kReady);
}

// Nobody can run: either all threads stand at one barrier, or the kernel is wrong.
void Block::open_barrier() {
  const BarrierSite* const site = thread(0).barrier;
  bool all_here = true;
  bool in_warp = false;
  for (const Thread& thread : threads_) {
    all_here = all_here && thread.state == State::kAtBarrier && thread.barrier == site;
    in_warp = in_warp || thread.state == State::kInWarp;
  }
  if (!all_here) stuck(in_warp ? "deadlock" : "divergent barrier");
  opened_votes_ = votes_;
  votes_ = 0;
  for (int i = 0; i < size(); ++i) make_ready(i);
  first_warp();
}

// A lane that has returned leaves behind whoever waits for it.
void Block::on_return() {
  const int lane = current_ % kWarpSize;
  const int first = current_ - lane;
  for (int i = first; i < std::min(first + kWarpSize, size()); ++i) {
    const Thread& other = thread(i);
    if (other.state != State::kInWarp || (other.call.mask >> lane & 1u) == 0) continue;
    fail("lane " + std::to_string(lane) + " has returned, but lane " + std::to_string(i - first) + " waits for it at " +
         describe(other.call));
  }
}

std::string Block::waiting() const {
  std::map<std::string, int> groups;
  for (int i = 0; i < static_cast<int>(threads_.size()); ++i) {
    const Thread& thread = threads_[static_cast<std::size_t>(i)];
    if (thread.state == State::kAtBarrier)
      ++groups["waiting at " + std::string(thread.barrier->name) + ", " +
               place(thread.barrier->file, thread.barrier->line)];
    if (thread.state == State::kInWarp) ++groups["waiting at " + describe(thread.call)];
    if (thread.state == State::kReturned) ++groups["returned"];
    if (thread.state == State::kReady) ++groups["ready to run"];
  }
  std::string text;
  for (const auto& [where, count] : groups) text += "; threads " + where + ": " + std::to_string(count);
  return text;
}

void Block::stuck(const std::string& problem) const {
  throw EmulationError(context() + ": " + problem + waiting());
}

}  // namespace deepclust::emu
