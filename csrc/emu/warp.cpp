#include "warp.h"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>

#include "block.h"

namespace deepclust::emu {
namespace {

std::string hex(unsigned mask) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}

// By content: two sources may hold the same literal twice.
bool same_text(const char* a, const char* b) {
  return a == b || std::strcmp(a, b) == 0;
}

bool same_call(const WarpCall& a, const WarpCall& b) {
  return a.mask == b.mask && a.where.line() == b.where.line() && a.where.column() == b.where.column() &&
         same_text(a.function, b.function) && same_text(a.where.file_name(), b.where.file_name());
}

bool names(unsigned mask, int lane) {
  return (mask >> lane & 1u) != 0;
}

unsigned bit(int lane) {
  return 1u << lane;
}

// Whether every lane of the caller's mask has arrived. A lane that can never come is an error now, not a deadlock
// later.
//
// Lanes that have arrived are compared with the caller's call when the last is there, and one of them before that:
// comparing all on each arrival costs more than all the rest.
bool all_arrived(Block& block, int first, const WarpCall& call) {
  const int self = block.current() - first;
  const LaneMasks& lanes = block.lanes(first);
  const int width = std::min(kWarpSize, block.size() - first);
  const unsigned existing = width == kWarpSize ? ~0u : bit(width) - 1;
  const auto who = [&](int lane) { return describe(call) + " names lane " + std::to_string(lane); };
  if ((call.mask & ~existing) != 0)
    fail(who(std::countr_zero(call.mask & ~existing)) + ", but this warp has " + std::to_string(width) + " lanes");
  if ((call.mask & lanes.returned) != 0)
    fail(who(std::countr_zero(call.mask & lanes.returned)) + ", which has returned");

  const unsigned others = call.mask & ~bit(self);
  const bool arrived = (others & ~lanes.in_warp) == 0;
  unsigned present = others & lanes.in_warp;
  if (!arrived) present &= -present;
  for (; present != 0; present &= present - 1) {
    const int lane = std::countr_zero(present);
    const WarpCall& other = block.thread(first + lane).call;
    if (same_call(call, other)) continue;
    if (names(other.mask, self)) fail(who(lane) + ", which waits for this lane in " + describe(other));
    return false;  // it is in a call with other lanes, and may come here after
  }
  return arrived;
}

void exchange(Block& block, int first, unsigned mask) {
  std::uint64_t ballot = 0;
  for (int lane = 0; lane < kWarpSize; ++lane)
    if (names(mask, lane) && block.thread(first + lane).call.value != 0) ballot |= bit(lane);
  for (int lane = 0; lane < kWarpSize; ++lane) {
    if (!names(mask, lane)) continue;
    Thread& reader = block.thread(first + lane);
    const int source = reader.call.source;
    reader.result = source == kNoSource ? ballot : block.thread(first + source).call.value;
  }
}

}  // namespace

std::string describe(const WarpCall& call) {
  return std::string(call.function) + " at " + place(call.where.file_name(), call.where.line()) + " with mask " +
         hex(call.mask);
}

int lane_of_self() {
  return running_block().current() % kWarpSize;
}

std::uint64_t warp_call(const WarpCall& call) {
  Block& block = running_block();
  block.maybe_switch();
  block.count_step(call.function, call.where);
  const int lane = block.current() % kWarpSize;
  const int first = block.current() - lane;
  if (!names(call.mask, lane))
    fail(describe(call) + " is called by lane " + std::to_string(lane) + ", not in the mask");
  if (call.source != kNoSource && !names(call.mask, call.source))
    fail(describe(call) + " reads lane " + std::to_string(call.source) + ", not in the mask");

  block.self().call = call;
  if (!all_arrived(block, first, call)) {
    block.wait(State::kInWarp);
    return block.self().result;
  }
  exchange(block, first, call.mask);
  for (int other = 0; other < kWarpSize; ++other)
    if (names(call.mask, other) && other != lane) block.make_ready(first + other);
  block.maybe_switch();
  return block.self().result;
}

int shuffle_source(Shuffle kind, long long argument, int width, const char* function,
                   const std::source_location& where) {
  const auto refuse = [&](const std::string& problem) {
    fail(std::string(function) + " at " + place(where.file_name(), where.line()) + ": " + problem);
  };
  if (width < 1 || width > kWarpSize || (width & (width - 1)) != 0)
    refuse("'width' must be a power of two up to 32, got " + std::to_string(width));
  const int lane = lane_of_self();
  const int segment = lane & ~(width - 1);
  if (kind == Shuffle::kIndex) return segment | static_cast<int>(argument & (width - 1));
  // The hardware cuts the argument to five bits: 32 would quietly mean 0.
  if (argument < 0 || argument >= kWarpSize)
    refuse("the lane offset must be in [0, 32), got " + std::to_string(argument));
  const int offset = static_cast<int>(argument);
  if (kind == Shuffle::kUp) return lane - offset < segment ? lane : lane - offset;
  const int source = kind == Shuffle::kDown ? lane + offset : lane ^ offset;
  return source >= segment + width ? lane : source;
}

}  // namespace deepclust::emu
