// Warp functions: the lanes that a mask names meet, exchange 64 bits each, and go on.
#pragma once

#include <cstdint>
#include <source_location>
#include <string>

namespace deepclust::emu {

inline constexpr int kWarpSize = 32;
inline constexpr int kNoSource = -1;

struct WarpCall {
  const char* function = nullptr;
  unsigned mask = 0;
  std::uint64_t value = 0;
  int source = kNoSource;  // the lane whose value is wanted; without one the result is the ballot of value != 0
  std::source_location where;
};

// Waits for every lane of the mask, and returns the value of lane `source`, or the ballot.
std::uint64_t warp_call(const WarpCall& call);
int lane_of_self();
// "__shfl_sync at kernel.cuh:7 with mask 0x0000ffff"
std::string describe(const WarpCall& call);

// The lane that a shuffle reads, as PTX defines it; a lane beyond the segment of `width` lanes is the caller's own.
enum class Shuffle { kIndex, kUp, kDown, kXor };
int shuffle_source(Shuffle kind, long long argument, int width, const char* function,
                   const std::source_location& where);

}  // namespace deepclust::emu
