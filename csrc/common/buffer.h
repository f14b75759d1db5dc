// Scratch memory on cache-line bounds, kept by each thread between calls.
//
// Fresh memory costs a page fault for every 4 KB, which is more than the arithmetic of a small loss. A thread's buffers
// are taken from one block like a stack and given back in reverse order, as scopes end. What does not fit comes from
// the heap, and the block grows to the most that was in use at once, up to kKept bytes.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <new>
#include <stdexcept>
#include <string>

namespace deepclust {

class ScratchStack {
 public:
#if defined(__SANITIZE_ADDRESS__)
  static constexpr std::size_t kKept = 0;  // every buffer from the heap, where a step beyond its end is seen
#else
  static constexpr std::size_t kKept = std::size_t{16} << 20;
#endif

  ScratchStack() = default;
  ~ScratchStack() { ::operator delete(block_, kAlign); }
  ScratchStack(const ScratchStack&) = delete;
  ScratchStack& operator=(const ScratchStack&) = delete;

  static ScratchStack& of_this_thread() {
    thread_local ScratchStack stack;
    return stack;
  }
  // `bytes` is a multiple of the alignment.
  void* take(std::size_t bytes) {
    const bool fits = bytes <= size_ && used_ <= size_ - bytes;
    // The heap first: where it refuses, nothing counts as used.
    void* memory = fits ? block_ + used_ : ::operator new(bytes, kAlign, std::nothrow);
    if (memory == nullptr)
      throw std::runtime_error("no memory for " + std::to_string(bytes >> 20) +
                               " MB of scratch: the arguments must be of fewer or smaller joints, clusters or rows");
    used_ += bytes;
    most_ = std::max(most_, used_);
    return memory;
  }
  void give_back(void* memory, std::size_t bytes) {
    used_ -= bytes;
    if (memory < block_ || memory >= block_ + size_) ::operator delete(memory, kAlign);
    if (used_ == 0 && most_ > size_ && size_ < kKept) grow();
  }

  static constexpr std::align_val_t kAlign{64};

 private:
  void grow() {
    ::operator delete(block_, kAlign);
    block_ = nullptr;
    size_ = 0;
    const std::size_t size = std::min(most_, kKept);
    block_ = static_cast<std::byte*>(::operator new(size, kAlign, std::nothrow));
    size_ = block_ == nullptr ? 0 : size;
  }

  std::byte* block_ = nullptr;
  std::size_t size_ = 0;
  std::size_t used_ = 0;
  std::size_t most_ = 0;
};

// `size` elements of scratch, uninitialised. To be made and left in the order of scopes, on one thread.
template <typename T>
class Buffer {
 public:
  explicit Buffer(int64_t size)
      : bytes_((sizeof(T) * static_cast<std::size_t>(std::max<int64_t>(1, size)) + 63) / 64 * 64),
        data_(static_cast<T*>(ScratchStack::of_this_thread().take(bytes_))) {}
  ~Buffer() { ScratchStack::of_this_thread().give_back(data_, bytes_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* get() const { return data_; }

 private:
  std::size_t bytes_;
  T* data_;
};

}  // namespace deepclust
