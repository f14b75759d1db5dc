// Vectors of the processor. A kernel that is written over a level's own registers (Register<L, T>) is fast at every
// level; 64-byte vectors are short to write, and g++ 12 keeps them in memory where registers are narrower.
#pragma once

#include <cstdint>

#include "../../common/accumulator.h"
#include "../../common/arithmetic.h"
#include "../../common/macros.h"
#include "level.h"

namespace deepclust {

// 64-byte vectors: one AVX-512 register, two AVX2 or four SSE ones, and plain code elsewhere.
template <typename T>
struct VectorOf;
template <>
struct VectorOf<float> {
  typedef float type __attribute__((vector_size(64), aligned(4), may_alias));
  typedef int32_t mask __attribute__((vector_size(64), aligned(4), may_alias));
  typedef uint32_t bits __attribute__((vector_size(64), aligned(4), may_alias));
};
template <>
struct VectorOf<double> {
  typedef double type __attribute__((vector_size(64), aligned(8), may_alias));
  typedef int64_t mask __attribute__((vector_size(64), aligned(8), may_alias));
};

// Lanes of a 64-byte vector: what data is laid out and filled up in at every level, so that results do not depend on
// it.
template <typename T>
inline constexpr int64_t kLanes = 64 / sizeof(T);

namespace cpu {

// One register of level L. It is read and written anywhere through a packed struct: g++ 12 sends a memcpy of 32 bytes
// through the stack.
template <typename L, typename T>
struct Register {
  typedef T type __attribute__((vector_size(L::kRegisterBytes), may_alias));
  struct __attribute__((packed, may_alias)) Anywhere {
    type vector;
  };
  static constexpr int64_t kLanes = L::kRegisterBytes / sizeof(T);
  // Registers of 64 bytes.
  static constexpr int kParts = 64 / L::kRegisterBytes;
};

template <typename L, typename T>
DC_INLINE typename Register<L, T>::type load(const T* from) {
  return reinterpret_cast<const typename Register<L, T>::Anywhere*>(from)->vector;
}
template <typename L, typename T>
DC_INLINE void store(T* to, const typename Register<L, T>::type& vector) {
  reinterpret_cast<typename Register<L, T>::Anywhere*>(to)->vector = vector;
}
template <typename L, typename T>
DC_INLINE typename Register<L, T>::type broadcast(T value) {
  return typename Register<L, T>::type{} + value;
}

}  // namespace cpu
}  // namespace deepclust
