// The memory bank's launches on numpy arrays; bfloat16 as uint16.
#include <pybind11/stl.h>

#include "../cuda/bank_index.cu"
#include "../cuda/bank_nll_entropy.cu"
#include "../cuda/bank_update.cu"
#include "arrays.h"
#include "bind.h"
#include "stored.h"

namespace deepclust::emu {
namespace {

// v [B, d], bank [N, d], index [B], neighbors [B, m] -> nll [B], entropy [B] and their gradients [B, d], None where not
// asked for. least_split: rows of the bank that a block streams at least, the kernels' own choice if 0.
py::tuple bank_nll_entropy(const py::array& v, const py::array& bank, const py::array& index,
                           const py::array& neighbors, double temperature, bool nll, bool entropy, bool gradient,
                           int64_t least_split) {
  const cuda::BankPlan plan(v.shape(0), bank.shape(0), v.shape(1), neighbors.shape(1), temperature, nll, entropy,
                            gradient, dtype_of(bank), least_split > 0 ? least_split : cuda::BankPlan::kLeastSplit);
  return with_stored(plan.dtype, [&](auto zero) -> py::tuple {
    using E = decltype(zero);
    using T = accumulator_t<E>;
    const auto queries = to_device<T>(v, "v");
    const auto rows = to_device<E>(bank, "bank");
    const auto places = to_device<int64_t>(index, "index"), others = to_device<int64_t>(neighbors, "neighbors");
    const DeviceBuffer<unsigned char> workspace(static_cast<int64_t>(plan.workspace_bytes()));
    const auto size = [&](bool asked, int64_t each) { return asked ? plan.queries * each : 0; };
    const DeviceBuffer<T> loss(size(nll, 1)), disorder(size(entropy, 1));
    const DeviceBuffer<T> loss_grad(size(nll && gradient, plan.depth)),
        disorder_grad(size(entropy && gradient, plan.depth));
    cuda::bank_nll_entropy(plan, queries.get(), rows.get(), places.get(), others.get(), workspace.get(), loss.get(),
                           disorder.get(), loss_grad.get(), disorder_grad.get(), nullptr);
    const auto vector = [&](bool asked, const DeviceBuffer<T>& from) -> py::object {
      return asked ? py::object(to_numpy(from)) : py::none();
    };
    const auto matrix = [&](bool asked, const DeviceBuffer<T>& from) -> py::object {
      return asked ? py::object(to_numpy(from, {plan.queries, plan.depth})) : py::none();
    };
    return py::make_tuple(vector(nll, loss), vector(entropy, disorder), matrix(nll && gradient, loss_grad),
                          matrix(entropy && gradient, disorder_grad));
  });
}

// The bank after the update. by_columns: as a view whose columns lie together.
py::array bank_update(const py::array& bank, const py::array& index, const py::array& features, double momentum,
                      bool by_columns) {
  const int64_t count = bank.shape(0), depth = bank.shape(1);
  const cuda::BankUpdate update{
      count,    depth,          features.shape(0), by_columns ? 1 : depth, by_columns ? count : 1,
      momentum, dtype_of(bank), dtype_of(features)};
  return with_stored(update.dtype, [&](auto zero) -> py::array {
    using E = decltype(zero);
    const py::array lying = by_columns ? py::array(bank.attr("T").attr("copy")()) : bank;
    const auto rows = to_device<E>(lying, "bank");
    const auto places = to_device<int64_t>(index, "index");
    const auto run = [&](const auto& candidates) {
      cuda::bank_update(update, rows.get(), places.get(), candidates.get(), nullptr);
      const py::array after = to_numpy(rows, shape_of(lying));
      return by_columns ? py::array(after.attr("T").attr("copy")()) : after;
    };
    if (update.feature_dtype == DType::kDouble) return run(to_device<double>(features, "features"));
    return run(to_device<float>(features, "features"));
  });
}

// The first place of an index below `lowest` or not below `rows`, -1 if there is none.
int64_t find_bad_index(const py::array& index, int64_t lowest, int64_t rows) {
  const auto places = to_device<int64_t>(index, "index");
  const DeviceBuffer<unsigned long long> bad(1);  // all ones
  cuda::find_bad_index(places.get(), places.size(), lowest, rows, bad.get(), nullptr);
  return static_cast<int64_t>(*bad.get());
}

}  // namespace

void bind_bank(py::module_& module) {
  module.def("bank_nll_entropy", &bank_nll_entropy, py::arg("v"), py::arg("bank"), py::arg("index"),
             py::arg("neighbors"), py::arg("temperature"), py::arg("nll"), py::arg("entropy"), py::arg("gradient"),
             py::arg("least_split") = 0);
  module.def("bank_update", &bank_update, py::arg("bank"), py::arg("index"), py::arg("features"), py::arg("momentum"),
             py::arg("by_columns") = false);
  module.def("find_bad_index", &find_bad_index);
}

}  // namespace deepclust::emu
