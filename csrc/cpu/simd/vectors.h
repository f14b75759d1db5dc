// Vectors of the processor. A kernel that is written over a level's own registers (Register<L, T>) is fast at every
// level; 64-byte vectors are short to write, and g++ 12 keeps them in memory where registers are narrower.
#pragma once

#include <cstdint>
#include <type_traits>

#include "../../common/accumulator.h"
#include "../../common/arithmetic.h"
#include "../../common/macros.h"
#include "level.h"

#if defined(DC_LEVELS)
#include <immintrin.h>
#endif

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
// One value in all lanes. By the instruction itself: g++ 12 builds a 32-byte vector lane by lane in a function that is
// not compiled for AVX2 before it is inlined into one that is.
template <typename L, typename T>
DC_INLINE typename Register<L, T>::type broadcast(T value) {
  using V = typename Register<L, T>::type;
#if defined(DC_LEVELS)
  if constexpr (L::kLevel == Level::avx2) {
    if constexpr (std::is_same_v<T, float>)
      return (V)__builtin_ia32_vbroadcastss_ps256(__m128{value});
    else if constexpr (std::is_same_v<T, double>)
      return (V)__builtin_ia32_vbroadcastsd_pd256(__m128d{value});
    else
      return (V)__builtin_ia32_pbroadcastd256((__v4si)__m128i{static_cast<uint32_t>(value)});
  }
#endif
  V vector;
  for (int64_t i = 0; i < Register<L, T>::kLanes; ++i) vector[i] = value;
  return vector;
}

}  // namespace cpu
}  // namespace deepclust
