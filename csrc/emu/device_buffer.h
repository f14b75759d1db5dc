// Device memory as cudaMalloc gives it: on a 256-byte bound, and full of NaN until a kernel writes it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace deepclust::emu {

// Exactly `size` elements, so that ASan sees a step beyond the last; the first one `offset` elements behind the bound,
// as in a view of a larger tensor.
template <typename T>
class DeviceBuffer {
 public:
  static_assert(std::is_trivially_copyable_v<T>, "device memory holds bytes");

  explicit DeviceBuffer(std::int64_t size, std::int64_t offset = 0) : size_(size), offset_(offset) {
    if (size < 0) throw std::invalid_argument("DeviceBuffer: 'size' must be at least 0, got " + std::to_string(size));
    data_.reset(static_cast<T*>(::operator new(static_cast<std::size_t>(offset) * sizeof(T) + bytes(), kAlign)));
    // NaN in every float type, -1 in every signed one: what a kernel forgets to write does not pass for a result.
    std::memset(static_cast<void*>(get()), 0xff, bytes());
  }
  T* get() const { return data_.get() + offset_; }
  std::int64_t size() const { return size_; }
  std::size_t bytes() const { return static_cast<std::size_t>(size_) * sizeof(T); }

 private:
  static constexpr std::align_val_t kAlign{256};
  struct Free {
    void operator()(T* data) const { ::operator delete(static_cast<void*>(data), kAlign); }
  };

  std::int64_t size_, offset_;
  std::unique_ptr<T, Free> data_;
};

}  // namespace deepclust::emu
