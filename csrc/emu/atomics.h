// CUDA's atomics. Fibers never interrupt one another, so each is plain code behind a point where the schedule may
// switch.
#pragma once

#include <source_location>
#include <string>

#include "machine.h"

namespace deepclust::emu {

// Replaces *address by next(*address) and returns what was there.
template <typename T, typename Next>
T atomic(T* address, Next next, const char* function, const std::source_location& where) {
  switch_point(function, where);
  if (reinterpret_cast<std::uintptr_t>(address) % sizeof(T) != 0)
    fail(std::string(function) + " at " + place(where.file_name(), where.line()) +
         ": the address must be a multiple of " + std::to_string(sizeof(T)));
  const T before = *address;
  *address = next(before);
  return before;
}

}  // namespace deepclust::emu

#define DC_EMU_ATOMIC(T, name, next)                                                                        \
  inline T name(T* address, T value, const std::source_location& where = std::source_location::current()) { \
    return deepclust::emu::atomic(address, [&](T old) -> T { return next; }, #name, where);                 \
  }

// Integers wrap, as they do on a GPU; signed ones by way of unsigned, where that is no overflow.
DC_EMU_ATOMIC(int, atomicAdd, static_cast<int>(static_cast<unsigned>(old) + static_cast<unsigned>(value)))
DC_EMU_ATOMIC(unsigned, atomicAdd, old + value)
DC_EMU_ATOMIC(unsigned long long, atomicAdd, old + value)
DC_EMU_ATOMIC(float, atomicAdd, old + value)
DC_EMU_ATOMIC(double, atomicAdd, old + value)
DC_EMU_ATOMIC(int, atomicMax, old < value ? value : old)
DC_EMU_ATOMIC(unsigned, atomicMax, old < value ? value : old)
DC_EMU_ATOMIC(unsigned long long, atomicMax, old < value ? value : old)
DC_EMU_ATOMIC(int, atomicMin, value < old ? value : old)
DC_EMU_ATOMIC(unsigned, atomicMin, value < old ? value : old)
DC_EMU_ATOMIC(unsigned long long, atomicMin, value < old ? value : old)
DC_EMU_ATOMIC(int, atomicExch, (static_cast<void>(old), value))
DC_EMU_ATOMIC(unsigned, atomicExch, (static_cast<void>(old), value))
DC_EMU_ATOMIC(unsigned long long, atomicExch, (static_cast<void>(old), value))
DC_EMU_ATOMIC(float, atomicExch, (static_cast<void>(old), value))
DC_EMU_ATOMIC(int, atomicOr, old | value)
DC_EMU_ATOMIC(unsigned, atomicOr, old | value)
DC_EMU_ATOMIC(unsigned long long, atomicOr, old | value)
// Counts up to `value`, then starts again at 0.
DC_EMU_ATOMIC(unsigned, atomicInc, old >= value ? 0 : old + 1)
#undef DC_EMU_ATOMIC

#define DC_EMU_ATOMIC_CAS(T)                                                                                          \
  inline T atomicCAS(T* address, T expected, T value,                                                                 \
                     const std::source_location& where = std::source_location::current()) {                           \
    return deepclust::emu::atomic(address, [&](T old) { return old == expected ? value : old; }, "atomicCAS", where); \
  }
DC_EMU_ATOMIC_CAS(int)
DC_EMU_ATOMIC_CAS(unsigned)
DC_EMU_ATOMIC_CAS(unsigned long long)
#undef DC_EMU_ATOMIC_CAS

// A single system thread sees its own writes in order; what is left of a fence is a point to switch at.
inline void __threadfence(const std::source_location& where = std::source_location::current()) {
  deepclust::emu::switch_point("__threadfence", where);
}
inline void __threadfence_block(const std::source_location& where = std::source_location::current()) {
  deepclust::emu::switch_point("__threadfence_block", where);
}
