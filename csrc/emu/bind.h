// bind_<op>.cpp defines one of these: it adds the op's kernels, launched as its .cu launches them, to the module.
#pragma once

#include <pybind11/pybind11.h>

namespace deepclust::emu {

void bind_bank(pybind11::module_& module);
void bind_dhog_loss(pybind11::module_& module);
void bind_graph(pybind11::module_& module);
void bind_half(pybind11::module_& module);
void bind_jule_loss(pybind11::module_& module);
void bind_kmeans(pybind11::module_& module);
void bind_knn(pybind11::module_& module);
void bind_mi_loss(pybind11::module_& module);
void bind_selftest(pybind11::module_& module);

}  // namespace deepclust::emu
