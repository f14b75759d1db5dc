#include <tuple>

#include "clustering.h"

namespace deepclust::cpu {

// (x [.., N, d], centroids [.., K, d]) -> labels [.., N] in int64, squared distances [.., N] in the accumulator's
// dtype.
std::tuple<Tensor, Tensor> kmeans_assign(const Tensor& x, const Tensor& centroids) {
  check_points("kmeans_assign", x);
  check_centroids("kmeans_assign", x, centroids);
  const Matrices points(x), centres(centroids);
  const ScalarType dtype = accumulator_dtype(x.scalar_type());
  Tensor labels = empty(sizes_with(x, 1, {}), ScalarType::Long, x);
  Tensor distances = empty(sizes_with(x, 1, {}), dtype, x);
  dispatch_accumulator(dtype, [&](auto zero) {
    using T = decltype(zero);
    for (int64_t b = 0; b < points.batch; ++b) {
      const T* c = centres.matrix<T>(b);
      check_finite("kmeans_assign", "centroids", c, centres.rows, centres.cols);
      if (points.rows == 0) continue;
      const ReadyPoints<T> ready("kmeans_assign", points.matrix<T>(b), points.rows, points.cols, centres.rows);
      CodedCentroids<T> coded(ready.points, centres.rows);
      int64_t* label = static_cast<int64_t*>(labels.mutable_data_ptr()) + b * points.rows;
      assign_all(ready.points, c, coded, label);
      all_label_distances(ready, c, nullptr, label, static_cast<T*>(distances.mutable_data_ptr()) + b * points.rows);
    }
  });
  return {labels, distances};
}

}  // namespace deepclust::cpu

STABLE_TORCH_LIBRARY_IMPL(deepclust, CPU, library) {
  library.impl("kmeans_assign", TORCH_BOX(&deepclust::cpu::kmeans_assign));
}
