// jule_loss's launches on numpy arrays; bfloat16 as uint16.
#include "../cuda/jule_loss.cu"
#include "arrays.h"
#include "bind.h"
#include "stored.h"

namespace deepclust::emu {
namespace {

// z [B, d], labels [B], seed [1] -> loss [1], z_grad [B, d].
py::tuple jule_loss(const py::array& z, const py::array& labels, const py::array& seed, double gamma, double margin,
                    int64_t n_negatives) {
  const cuda::JulePlan plan{z.shape(0), z.shape(1), dtype_of(z), n_negatives};
  return with_stored(plan.dtype, [&](auto zero) -> py::tuple {
    using E = decltype(zero);
    using T = accumulator_t<E>;
    const auto rows = to_device<E>(z, "z");
    const auto label = to_device<int64_t>(labels, "labels"), start = to_device<int64_t>(seed, "seed");
    const DeviceBuffer<unsigned char> workspace(static_cast<int64_t>(plan.workspace_bytes()));
    const DeviceBuffer<T> loss(1), z_grad(z.size());
    cuda::jule_loss_forward(plan, rows.get(), label.get(), start.get(), gamma, margin, workspace.get(), loss.get(),
                            z_grad.get(), nullptr);
    return py::make_tuple(to_numpy(loss), to_numpy(z_grad, shape_of(z)));
  });
}

}  // namespace

void bind_jule_loss(py::module_& module) {
  module.def("jule_loss", &jule_loss);
}

}  // namespace deepclust::emu
