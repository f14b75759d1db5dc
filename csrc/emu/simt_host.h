// The host half of the kernel dialect (csrc/cuda/simt.h): CUDA's names for g++, on the emulator. Test-only.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <source_location>
#include <string>
#include <type_traits>

#include "async_copy.h"
#include "atomics.h"
#include "barrier.h"
#include "machine.h"
#include "warp.h"

#define DC_GLOBAL inline
#define DC_DEVICE inline
#define DC_LAUNCH_BOUNDS(...)
#define DC_UNROLL
#define DC_UNROLL_BY(n)

// A static of the lambda's own gives each place in the text an address, and each template instantiation another.
#define DC_EMU_SITE()    \
  ([]() -> const void* { \
    static char site;    \
    return &site;        \
  }())
#define DC_EMU_BARRIER(name)                                               \
  ([]() -> const ::deepclust::emu::BarrierSite& {                          \
    static ::deepclust::emu::ListedBarrier site(name, __FILE__, __LINE__); \
    return site;                                                           \
  }())

// A reference to an array, so that sizeof and the sanitizer's bounds see N.
#define DC_SHARED(T, name, N) T(&name)[N] = ::deepclust::emu::shared<T, N>(DC_EMU_SITE(), #name)
#define DC_DYNAMIC_SHARED(T, name) T* const name = ::deepclust::emu::dynamic<T>()

#define DC_SYNC() ::deepclust::emu::sync_threads(DC_EMU_BARRIER("DC_SYNC"))
#define DC_SYNCWARP(mask) \
  ::deepclust::emu::sync_warp(mask, DC_EMU_BARRIER("DC_SYNCWARP"), std::source_location::current())

#define DC_LAUNCH(kernel, grid, block, smem, stream) \
  ::deepclust::emu::launcher(kernel, #kernel, grid, block, smem, stream)

inline constexpr int warpSize = deepclust::emu::kWarpSize;
inline const uint3& threadIdx = deepclust::emu::position.thread;
inline const uint3& blockIdx = deepclust::emu::position.block;
inline const uint3& blockDim = deepclust::emu::position.block_size;
inline const uint3& gridDim = deepclust::emu::position.grid_size;

namespace deepclust::cuda {

using Stream = void*;

template <typename T, int N>
struct Vector;

}  // namespace deepclust::cuda

namespace deepclust::emu {

template <typename T, std::size_t N>
auto shared(const void* site, const char* name) -> T (&)[N] {
  static_assert(alignof(T) <= kSharedAlign, "shared memory lies on 16-byte bounds");
  static_assert(std::is_trivially_default_constructible_v<T>, "CUDA starts no constructors in shared memory");
  return *static_cast<T(*)[N]>(shared_array(site, sizeof(T[N]), name));
}

template <typename T>
T* dynamic() {
  static_assert(alignof(T) <= kSharedAlign, "shared memory lies on 16-byte bounds");
  return static_cast<T*>(dynamic_shared());
}

template <typename... P>
struct [[nodiscard]] Launcher {
  static_assert((!std::is_reference_v<P> && ...), "a kernel takes its arguments by value: host memory is out of reach");
  static_assert((std::is_trivially_copyable_v<P> && ...), "a kernel's arguments are copied as bytes");

  void (*kernel)(P...);
  LaunchConfig config;

  void operator()(P... arguments) const {
    auto thread = [&] { kernel(arguments...); };
    launch(config, [](void* body) { (*static_cast<decltype(thread)*>(body))(); }, &thread);
  }
};

template <typename... P>
Launcher<P...> launcher(void (*kernel)(P...), const char* name, dim3 grid, dim3 block, long long dynamic_bytes,
                        cuda::Stream, const std::source_location& where = std::source_location::current()) {
  return {kernel, {name, where, grid, block, dynamic_bytes}};
}

template <int N, typename T>
void check_vector(const T* p, const char* function, const std::source_location& where) {
  constexpr std::size_t kBytes = sizeof(T) * N;
  static_assert(kBytes == 2 || kBytes == 4 || kBytes == 8 || kBytes == 16, "a GPU moves 2, 4, 8 or 16 bytes at once");
  if (reinterpret_cast<std::uintptr_t>(p) % kBytes != 0)
    fail(std::string(function) + " at " + place(where.file_name(), where.line()) +
         ": the address must be a multiple of " + std::to_string(kBytes));
}

// Ballot, any and all: the predicates of the mask's lanes as bits.
inline unsigned ballot(const char* function, unsigned mask, bool predicate, const std::source_location& where) {
  return static_cast<unsigned>(warp_call({function, mask, predicate, kNoSource, where}));
}

template <typename T>
T shuffle(const char* function, Shuffle kind, unsigned mask, T value, long long argument, int width,
          const std::source_location& where) {
  static_assert(std::is_arithmetic_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "CUDA shuffles 4 or 8 bytes");
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  const int source = shuffle_source(kind, argument, width, function, where);
  return std::bit_cast<T>(static_cast<Bits>(warp_call({function, mask, std::bit_cast<Bits>(value), source, where})));
}

}  // namespace deepclust::emu

namespace deepclust::cuda {

// memcpy, and not a cast pointer: the element's type is not the vector's.
template <int N, typename T>
Vector<T, N> load_vec(const T* p, const std::source_location& where = std::source_location::current()) {
  emu::check_vector<N>(p, "load_vec", where);
  Vector<T, N> vector;
  std::memcpy(&vector, p, sizeof vector);
  return vector;
}
template <int N, typename T>
void store_vec(T* p, const Vector<T, N>& vector, const std::source_location& where = std::source_location::current()) {
  emu::check_vector<N>(p, "store_vec", where);
  std::memcpy(p, &vector, sizeof vector);
}

}  // namespace deepclust::cuda

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = warpSize,
              const std::source_location& where = std::source_location::current()) {
  return deepclust::emu::shuffle("__shfl_sync", deepclust::emu::Shuffle::kIndex, mask, value, lane, width, where);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                 const std::source_location& where = std::source_location::current()) {
  return deepclust::emu::shuffle("__shfl_up_sync", deepclust::emu::Shuffle::kUp, mask, value, delta, width, where);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                   const std::source_location& where = std::source_location::current()) {
  return deepclust::emu::shuffle("__shfl_down_sync", deepclust::emu::Shuffle::kDown, mask, value, delta, width, where);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = warpSize,
                  const std::source_location& where = std::source_location::current()) {
  return deepclust::emu::shuffle("__shfl_xor_sync", deepclust::emu::Shuffle::kXor, mask, value, lane_mask, width,
                                 where);
}

inline unsigned __ballot_sync(unsigned mask, int predicate,
                              const std::source_location& where = std::source_location::current()) {
  return deepclust::emu::ballot("__ballot_sync", mask, predicate != 0, where);
}
inline int __any_sync(unsigned mask, int predicate,
                      const std::source_location& where = std::source_location::current()) {
  return deepclust::emu::ballot("__any_sync", mask, predicate != 0, where) != 0;
}
inline int __all_sync(unsigned mask, int predicate,
                      const std::source_location& where = std::source_location::current()) {
  return deepclust::emu::ballot("__all_sync", mask, predicate != 0, where) == mask;
}
// Which lanes happen to run together is up to the hardware: a kernel whose result depends on it has no one result.
unsigned __activemask() = delete;

inline int __syncthreads_count(int predicate, const std::source_location& where = std::source_location::current()) {
  return deepclust::emu::sync_threads_count(predicate != 0, "__syncthreads_count", where);
}
inline int __syncthreads_or(int predicate, const std::source_location& where = std::source_location::current()) {
  return deepclust::emu::sync_threads_count(predicate != 0, "__syncthreads_or", where) != 0;
}
inline int __syncthreads_and(int predicate, const std::source_location& where = std::source_location::current()) {
  return deepclust::emu::sync_threads_count(predicate == 0, "__syncthreads_and", where) == 0;
}

inline int __popc(unsigned x) {
  return std::popcount(x);
}
inline int __popcll(unsigned long long x) {
  return std::popcount(x);
}
inline int __ffs(int x) {
  return x == 0 ? 0 : std::countr_zero(static_cast<unsigned>(x)) + 1;
}
inline int __clz(int x) {
  return std::countl_zero(static_cast<unsigned>(x));
}
template <typename T>
T __ldg(const T* p) {
  return *p;
}
