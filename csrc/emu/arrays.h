// numpy arrays to device memory and back. Half types travel as float16, bfloat16 as its bits in uint16.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "../common/half.h"
#include "device_buffer.h"

namespace deepclust::emu {

namespace py = pybind11;

// The numpy type that holds T's bits.
template <typename T>
struct NumpyType {
  static py::dtype get() { return py::dtype::of<T>(); }
};
template <>
struct NumpyType<Half> {
  static py::dtype get() { return py::dtype("float16"); }
};
template <>
struct NumpyType<BFloat16> {
  static py::dtype get() { return py::dtype("uint16"); }
};

// Elements between a 256-byte bound and the copies that to_device makes: a view of a tensor may start anywhere.
inline std::int64_t input_offset = 0;

// A copy of `array` in C order. The dtype must be T's: a silent conversion would test another kernel than the one
// named.
template <typename T>
DeviceBuffer<T> to_device(const py::array& array, const char* name) {
  const py::dtype expected = NumpyType<T>::get();
  if (!array.dtype().equal(expected))
    throw py::type_error("emu: '" + std::string(name) + "' must be " + std::string(py::str(expected)) + ", got " +
                         std::string(py::str(array.dtype())));
  const py::array packed = py::array::ensure(array, py::array::c_style);
  DeviceBuffer<T> buffer(packed.size(), input_offset);
  if (buffer.bytes() > 0) std::memcpy(static_cast<void*>(buffer.get()), packed.data(), buffer.bytes());
  return buffer;
}

// The buffer as a numpy array of `shape`, whose product is the buffer's size.
template <typename T>
py::array to_numpy(const DeviceBuffer<T>& buffer, const std::vector<py::ssize_t>& shape) {
  py::array array(NumpyType<T>::get(), shape);
  if (array.size() != buffer.size())
    throw py::value_error("emu: 'shape' must have " + std::to_string(buffer.size()) + " elements, got " +
                          std::to_string(array.size()));
  if (buffer.bytes() > 0) std::memcpy(array.mutable_data(), static_cast<const void*>(buffer.get()), buffer.bytes());
  return array;
}
template <typename T>
py::array to_numpy(const DeviceBuffer<T>& buffer) {
  return to_numpy(buffer, {static_cast<py::ssize_t>(buffer.size())});
}

}  // namespace deepclust::emu
