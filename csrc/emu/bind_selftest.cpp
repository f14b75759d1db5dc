// The emulator's own kernels, right and wrong, by name.
#include <pybind11/stl.h>

#include <array>
#include <map>
#include <string>

#include "arrays.h"
#include "bind.h"
#include "fiber.h"
#include "selftest_kernel.cuh"
#include "selftest_wrong_kernel.cuh"
#include "tensor_sum.h"

namespace deepclust::emu {
namespace {

using Kernel = void (*)(const float* x, float* out, int n);
using Sizes = std::array<long long, 3>;

const std::map<std::string, Kernel>& kernels() {
  using namespace selftest;
#define DC_ENTRY(name) \
  {                    \
    #name, &name       \
  }
  static const std::map<std::string, Kernel> table = {
      DC_ENTRY(sum_shared),
      {"sum_shuffle", &sum_shuffle<float>},
      {"sum_shuffle_double", &sum_shuffle<double>},
      DC_ENTRY(compact),
      DC_ENTRY(transpose),
      DC_ENTRY(histogram),
      DC_ENTRY(half_warps),
      DC_ENTRY(nested_masks),
      DC_ENTRY(scan_warp),
      DC_ENTRY(votes),
      DC_ENTRY(shuffles),
      DC_ENTRY(order),
      DC_ENTRY(copy_vectors),
      DC_ENTRY(last_block),
      DC_ENTRY(take_turns),
      DC_ENTRY(atomics),
      DC_ENTRY(wrong_read_before_write),
      DC_ENTRY(wrong_write_before_read),
      DC_ENTRY(wrong_scratch_reused),
      DC_ENTRY(wrong_divergent_barrier),
      DC_ENTRY(wrong_early_return),
      DC_ENTRY(wrong_caller_not_in_mask),
      DC_ENTRY(wrong_returned_lane),
      DC_ENTRY(wrong_missing_lane),
      DC_ENTRY(wrong_unnamed_source),
      DC_ENTRY(wrong_mixed_functions),
      DC_ENTRY(wrong_mixed_lines),
      DC_ENTRY(wrong_mixed_in_macro),
      DC_ENTRY(wrong_mixed_masks),
      DC_ENTRY(wrong_width),
      DC_ENTRY(wrong_offset),
      DC_ENTRY(wrong_deadlock),
      DC_ENTRY(wrong_endless_spin),
      DC_ENTRY(wrong_vector),
      DC_ENTRY(wrong_atomic_address),
      DC_ENTRY(wrong_shared_index),
      DC_ENTRY(wrong_shared_bounds),
      DC_ENTRY(wrong_dynamic_index),
      DC_ENTRY(wrong_global_index),
      DC_ENTRY(wrong_unwritten),
      {"wrong_shared_size", &wrong_shared_size<48 * 1024 + 1>},
      {"shared_size_limit", &wrong_shared_size<48 * 1024>},
      DC_ENTRY(wrong_stack),
      DC_ENTRY(wrong_nested_launch),
  };
#undef DC_ENTRY
  return table;
}

py::array run(const std::string& name, const py::array& x, std::int64_t out_size, const Sizes& grid, const Sizes& block,
              long long smem, const py::object& out) {
  const auto found = kernels().find(name);
  if (found == kernels().end()) throw py::key_error("emu: 'name' must be a self-test kernel, got '" + name + "'");
  const Kernel kernel = found->second;
  const DeviceBuffer<float> input = to_device<float>(x, "x");
  // A given `out` is what the kernel finds there; otherwise it finds NaN.
  const DeviceBuffer<float> output =
      out.is_none() ? DeviceBuffer<float>(out_size) : to_device<float>(out.cast<py::array>(), "out");
  DC_LAUNCH(kernel, dim3(grid[0], grid[1], grid[2]), dim3(block[0], block[1], block[2]), smem, nullptr)
  (input.get(), output.get(), static_cast<int>(input.size()));
  return to_numpy(output);
}

template <typename T>
py::array round_trip(const py::array& x) {
  const DeviceBuffer<T> buffer = to_device<T>(x, "x");
  if (reinterpret_cast<std::uintptr_t>(buffer.get()) % 256 != 0)
    throw EmulationError("emu: device memory must lie on a 256-byte bound");
  return to_numpy(buffer, std::vector<py::ssize_t>(x.shape(), x.shape() + x.ndim()));
}

}  // namespace

void bind_selftest(py::module_& module) {
  const Sizes one{1, 1, 1};
  module.def("selftest", &run, py::arg("name"), py::arg("x"), py::arg("out_size") = 0, py::kw_only(),
             py::arg("grid") = one, py::arg("block") = one, py::arg("smem") = 0, py::arg("out") = py::none());
  module.def("round_trip_float32", &round_trip<float>);
  module.def("round_trip_float64", &round_trip<double>);
  module.def("round_trip_int64", &round_trip<std::int64_t>);
  module.def("round_trip_float16", &round_trip<Half>);
  module.def("round_trip_bfloat16", &round_trip<BFloat16>);
  module.def("tensor_sum", [](float sum, float a, float b, float c, float d) { return tensor_sum(sum, {a, b, c, d}); });
#if defined(DC_EMU_ASAN)
  module.attr("sanitized") = true;
#else
  module.attr("sanitized") = false;
#endif
}

}  // namespace deepclust::emu
