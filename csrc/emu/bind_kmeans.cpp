// The k-means ops' launches on numpy arrays; bfloat16 as uint16. Centroids are in the accumulator's dtype.
#include "../cuda/kmeans.cu"

#include <pybind11/stl.h>

#include <algorithm>
#include <optional>

#include "../cuda/kmeans_assign.cu"
#include "../cuda/kmeans_plusplus.cu"
#include "arrays.h"
#include "bind.h"
#include "stored.h"

namespace deepclust::emu {
namespace {

cuda::AssignPlan plan_of(const py::array& x, int64_t clusters) {
  return {x.shape(0), x.shape(1), x.shape(2), clusters, dtype_of(x)};
}

// Flags as the host fills them before the launches.
DeviceBuffer<cuda::RowFlag> row_flags(int64_t count) {
  DeviceBuffer<cuda::RowFlag> flags(count);
  for (int64_t i = 0; i < count; ++i) flags.get()[i] = cuda::kNoRow;
  return flags;
}

// x [batch, n, d], centroids [batch, K, d] -> labels [batch, n], distances [batch, n], and the first rows that are not
// finite, of x and of the centroids, or -1. strip_rows: 0, or how many points the tensor-core filter takes at a time,
// which then serves at any size; then also the tiles of points that it left to the plain kernel.
py::tuple kmeans_assign(const py::array& x, const py::array& centroids, int64_t strip_rows) {
  const cuda::AssignPlan plan = plan_of(x, centroids.shape(1));
  return with_stored(plan.dtype, [&](auto zero) -> py::tuple {
    using E = decltype(zero);
    using T = accumulator_t<E>;
    const auto points = to_device<E>(x, "x");
    const auto centres = to_device<T>(centroids, "centroids");
    const DeviceBuffer<int64_t> labels(plan.batch * plan.n);
    const DeviceBuffer<T> distances(plan.batch * plan.n);
    const auto bad_rows = row_flags(2);
    const DeviceBuffer<unsigned char> memory(
        strip_rows > 0 ? static_cast<int64_t>(cuda::CentroidFilter(plan, nullptr, strip_rows).memory.bytes()) : 0);
    // Only where there is memory: a workspace poisons what lies between its arrays.
    std::optional<cuda::CentroidFilter> filter;
    if (strip_rows > 0) filter.emplace(plan, memory.get(), strip_rows);
    cuda::kmeans_assign(plan, points.get(), centres.get(), labels.get(), distances.get(), bad_rows.get(),
                        filter ? &*filter : nullptr, nullptr);
    if (filter)
      return py::make_tuple(to_numpy(labels, {plan.batch, plan.n}), to_numpy(distances, {plan.batch, plan.n}),
                            static_cast<int64_t>(bad_rows.get()[0]), static_cast<int64_t>(bad_rows.get()[1]),
                            std::count(filter->again, filter->again + plan.batch * filter->tiles(), 1));
    return py::make_tuple(to_numpy(labels, {plan.batch, plan.n}), to_numpy(distances, {plan.batch, plan.n}),
                          static_cast<int64_t>(bad_rows.get()[0]), static_cast<int64_t>(bad_rows.get()[1]));
  });
}

// Weights [batch, n] in float64, or none.
class Weights {
 public:
  explicit Weights(const py::object& weights) {
    if (!weights.is_none()) memory_.emplace(to_device<double>(weights.cast<py::array>(), "weights"));
  }
  const double* get() const { return memory_.has_value() ? memory_->get() : nullptr; }

 private:
  std::optional<DeviceBuffer<double>> memory_;
};

// Draws as the torch side does; how many rounds it took beyond those that K alone asks for.
int64_t draw(const cuda::SeedingPlan& plan, const void* x, int64_t seed, int64_t* seeds, void* centroids) {
  const DeviceBuffer<unsigned char> memory(static_cast<int64_t>(plan.workspace_bytes()));
  const DeviceBuffer<cuda::RowFlag> unfinished(1);
  cuda::start_seeding(plan, seed, memory.get(), unfinished.get(), nullptr);
  cuda::draw_rounds(plan, x, plan.rounds(), memory.get(), seeds, centroids, unfinished.get(), nullptr);
  int64_t more = 0;
  for (; plan.batch > 0 && unfinished.get()[0] != 0; ++more)
    cuda::draw_rounds(plan, x, 1, memory.get(), seeds, centroids, unfinished.get(), nullptr);
  return more;
}

// x [batch, n, d] -> seeds [batch, K], their rows [batch, K, d], and the rounds beyond the usual ones.
py::tuple kmeans_plusplus(const py::array& x, int64_t clusters, int64_t seed, const py::object& weights) {
  const Weights given(weights);
  const cuda::SeedingPlan plan(plan_of(x, clusters), given.get());
  return with_stored(plan.dtype, [&](auto zero) -> py::tuple {
    using E = decltype(zero);
    using T = accumulator_t<E>;
    const auto points = to_device<E>(x, "x");
    const DeviceBuffer<int64_t> seeds(plan.batch * clusters);
    const DeviceBuffer<T> centroids(plan.batch * clusters * plan.d);
    const int64_t more = draw(plan, points.get(), seed, seeds.get(), centroids.get());
    return py::make_tuple(to_numpy(seeds, {plan.batch, clusters}), to_numpy(centroids, {plan.batch, clusters, plan.d}),
                          more);
  });
}

// What the op returns, then the first rows that are not finite, of x and of the start, or -1: where there is one, the
// rest is None.
py::tuple kmeans(const py::array& x, const py::object& start, int64_t clusters, int64_t seed, int64_t max_iter,
                 double tol, int64_t empty, bool spherical, const py::object& weights, bool filtered) {
  const Weights given(weights);
  const cuda::KMeansPlan plan(plan_of(x, clusters), max_iter, tol, empty, spherical, given.get(), filtered);
  return with_stored(plan.dtype, [&](auto zero) -> py::tuple {
    using E = decltype(zero);
    using T = accumulator_t<E>;
    const auto points = to_device<E>(x, "x");
    const DeviceBuffer<unsigned char> memory(static_cast<int64_t>(plan.workspace_bytes()));
    const DeviceBuffer<T> centroids = start.is_none() ? DeviceBuffer<T>(plan.batch * clusters * plan.d)
                                                      : to_device<T>(start.cast<py::array>(), "start");
    const DeviceBuffer<int64_t> labels(plan.batch * plan.n), n_iter(plan.batch), empties(plan.batch * max_iter);
    const DeviceBuffer<T> inertia(plan.batch);
    const DeviceBuffer<double> history(plan.batch * max_iter * 3);
    const cuda::KMeansOutputs out{centroids.get(), labels.get(),  inertia.get(),
                                  n_iter.get(),    history.get(), empties.get()};
    const auto row_memory = row_flags(3);
    auto* const flags = reinterpret_cast<cuda::KMeansFlags*>(row_memory.get());
    cuda::start_kmeans(plan, points.get(), out, memory.get(), flags, nullptr);
    if (!start.is_none())
      cuda::find_bad_rows(sizeof(T) == sizeof(double) ? DType::kDouble : DType::kFloat, centroids.get(),
                          plan.batch * clusters, plan.d, nullptr, &flags->bad_start, nullptr);
    const auto bad_row = static_cast<int64_t>(flags->bad_row), bad_start = static_cast<int64_t>(flags->bad_start);
    if (bad_row >= 0 || bad_start >= 0) return py::make_tuple(py::none(), bad_row, bad_start);
    if (start.is_none()) {
      const DeviceBuffer<int64_t> seeds(plan.batch * clusters);
      draw(cuda::SeedingPlan(plan, given.get()), points.get(), seed, seeds.get(), centroids.get());
    }
    for (int64_t first = 0; first < max_iter && (first == 0 || flags->unfinished > 0); first += 4)
      cuda::iterate_kmeans(plan, points.get(), out, first, std::min(max_iter, first + 4), memory.get(), flags, nullptr);
    cuda::finish_kmeans(plan, points.get(), out, memory.get(), nullptr);
    const py::tuple outputs =
        py::make_tuple(to_numpy(centroids, {plan.batch, clusters, plan.d}), to_numpy(labels, {plan.batch, plan.n}),
                       to_numpy(inertia, {plan.batch}), to_numpy(n_iter, {plan.batch}),
                       to_numpy(history, {plan.batch, max_iter, 3}), to_numpy(empties, {plan.batch, max_iter}));
    return py::make_tuple(outputs, bad_row, bad_start);
  });
}

}  // namespace

void bind_kmeans(py::module_& module) {
  module.def("kmeans_assign", &kmeans_assign, py::arg("x"), py::arg("centroids"), py::arg("strip_rows") = 0);
  module.def("kmeans_plusplus", &kmeans_plusplus, py::arg("x"), py::arg("clusters"), py::arg("seed"),
             py::arg("weights") = py::none());
  module.def("kmeans", &kmeans, py::arg("x"), py::arg("start"), py::arg("clusters"), py::arg("seed"),
             py::arg("max_iter"), py::arg("tol"), py::arg("empty"), py::arg("spherical"),
             py::arg("weights") = py::none(), py::arg("filtered") = false);
}

}  // namespace deepclust::emu
