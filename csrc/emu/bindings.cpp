// The module `_emu`: the emulator's controls, and every op's kernels on numpy arrays.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "arrays.h"
#include "barrier.h"
#include "bind.h"
#include "machine.h"

namespace py = pybind11;

PYBIND11_MODULE(_emu, module) {
  using namespace deepclust::emu;

  py::register_exception<EmulationError>(module, "EmulationError", PyExc_RuntimeError);

  module.def(
      "set_schedule",
      [](const std::string& name, std::uint64_t seed) {
        if (name == "forward") return set_schedule(Schedule::kForward, seed);
        if (name == "reverse") return set_schedule(Schedule::kReverse, seed);
        if (name == "random") return set_schedule(Schedule::kRandom, seed);
        if (name == "eager") return set_schedule(Schedule::kEager, seed);
        if (name == "eager-reverse") return set_schedule(Schedule::kEagerReverse, seed);
        throw py::value_error(
            "emu: 'schedule' must be 'forward', 'reverse', 'random', 'eager' or 'eager-reverse', got '" + name + "'");
      },
      py::arg("schedule"), py::arg("seed") = 0);
  // Where inputs start: so many elements behind a 256-byte bound.
  module.def("set_input_offset", [](std::int64_t elements) { input_offset = elements; }, py::arg("elements"));
  module.def("set_step_limit", &set_step_limit, py::arg("steps") = kDefaultStepLimit);
  module.def("set_deleted_barrier", &set_deleted_barrier, py::arg("file"), py::arg("line"));
  module.def("clear_deleted_barrier", &clear_deleted_barrier);
  module.def("deleted_barrier_hits", &deleted_barrier_hits);
  // [(file, line, name)]
  module.def("barrier_sites", [] {
    py::list sites;
    for (const BarrierPlace& site : barrier_sites()) sites.append(py::make_tuple(site.file, site.line, site.name));
    return sites;
  });

  bind_bank(module);
  bind_dhog_loss(module);
  bind_graph(module);
  bind_half(module);
  bind_jule_loss(module);
  bind_kmeans(module);
  bind_knn(module);
  bind_mi_loss(module);
  bind_selftest(module);
}
