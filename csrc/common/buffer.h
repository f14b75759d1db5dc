// Scratch memory on cache-line bounds: an unaligned 64-byte vector would touch two lines at every load.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

namespace deepclust {

template <typename T>
class Buffer {
 public:
  explicit Buffer(int64_t size)
      : data_(static_cast<T*>(::operator new(sizeof(T) * static_cast<std::size_t>(size < 1 ? 1 : size), kAlign))) {}
  ~Buffer() { ::operator delete(data_, kAlign); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* get() const { return data_; }

 private:
  static constexpr std::align_val_t kAlign{64};
  T* data_;
};

}  // namespace deepclust
