// The 16-bit types' conversions as kernels do them, on numpy arrays.
#include "arrays.h"
#include "bind.h"

namespace deepclust::emu {
namespace {

template <typename E>
py::array read_all(const py::array& stored) {
  const auto in = to_device<E>(stored, "stored");
  const DeviceBuffer<float> out(in.size());
  for (int64_t i = 0; i < in.size(); ++i) out.get()[i] = read(in.get()[i]);
  return to_numpy(out);
}

template <typename E>
py::array write_all(const py::array& values) {
  const auto in = to_device<float>(values, "values");
  const DeviceBuffer<E> out(in.size());
  for (int64_t i = 0; i < in.size(); ++i) write(in.get()[i], out.get()[i]);
  return to_numpy(out);
}

}  // namespace

void bind_half(py::module_& module) {
  module.def("read_float16", &read_all<Half>);
  module.def("read_bfloat16", &read_all<BFloat16>);
  module.def("write_float16", &write_all<Half>);
  module.def("write_bfloat16", &write_all<BFloat16>);
}

}  // namespace deepclust::emu
