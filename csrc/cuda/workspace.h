// One allocation cut into arrays. With no memory behind it, it only measures.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace deepclust::cuda {

class Workspace {
 public:
  explicit Workspace(void* base = nullptr) : base_(static_cast<unsigned char*>(base)) {}

  // `count` elements on a 256-byte bound, uninitialised.
  template <typename T>
  T* take(int64_t count) {
    const std::size_t begin = bytes_, size = static_cast<std::size_t>(count) * sizeof(T);
    bytes_ = (begin + size + kGap + 255) / 256 * 256;
    if (base_ == nullptr) return nullptr;
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(base_ + begin + size, bytes_ - begin - size);
#endif
    return reinterpret_cast<T*>(base_ + begin);
  }
  std::size_t bytes() const { return bytes_; }

 private:
#if defined(__SANITIZE_ADDRESS__)
  static constexpr std::size_t kGap = 1;  // at least one byte that nobody may touch behind every array
#else
  static constexpr std::size_t kGap = 0;
#endif
  unsigned char* base_;
  std::size_t bytes_ = 0;
};

}  // namespace deepclust::cuda
