// The dtype of an array, as the kernels' host code names it.
#pragma once

#include <optional>

#include "../common/accumulator.h"
#include "../common/dtype.h"
#include "arrays.h"

namespace deepclust::emu {

inline DType dtype_of(const py::array& array) {
  if (array.dtype().equal(NumpyType<Half>::get())) return DType::kHalf;
  if (array.dtype().equal(NumpyType<BFloat16>::get())) return DType::kBFloat16;
  if (array.dtype().equal(NumpyType<float>::get())) return DType::kFloat;
  if (array.dtype().equal(NumpyType<double>::get())) return DType::kDouble;
  throw py::type_error("emu: an array must be float16, uint16 (bfloat16), float32 or float64, got " +
                       std::string(py::str(array.dtype())));
}

inline std::vector<py::ssize_t> shape_of(const py::array& array) {
  return {array.shape(), array.shape() + array.ndim()};
}

// What f(T{}) returns, with T the type of a stored number.
template <typename F>
auto with_stored(DType dtype, F&& f) {
  std::optional<decltype(f(float{}))> result;
  dispatch_stored(dtype, [&](auto zero) { result = f(zero); });
  return *result;
}

}  // namespace deepclust::emu
