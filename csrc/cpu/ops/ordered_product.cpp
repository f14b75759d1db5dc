// a^T b for matrices of any shape, summed in index order: the same bits for any number of threads, which a BLAS does
// not promise. Work: 2 k m n operations; b is copied once into panels.
#include "../../torch/checks.h"
#include "../../torch/dispatch.h"
#include "../../torch/parallel.h"
#include "../gemm/product.h"

#include "../../common/buffer.h"

namespace deepclust::cpu {
namespace {

constexpr int64_t kTaskRows = 32;   // of the result
constexpr int64_t kTaskPanels = 8;  // of b: 128 steps of them stay in the second-level cache

template <typename T>
Matrix<const T> view(const Tensor& t) {
  return {static_cast<const T*>(t.data_ptr()), t.size(0), t.size(1), t.stride(0), t.stride(1)};
}

template <typename T>
void multiply(const Matrix<const T>& a, const Matrix<const T>& b, T* out) {
  constexpr int64_t kWidth = kTaskPanels * Panels<T>::kPanel;
  const Buffer<T> memory(Panels<T>::size(b.rows, b.cols));
  const Panels<T> panels{memory.get(), b.rows, b.cols};
  const int64_t across = ceil_div(b.cols, kWidth), down = ceil_div(a.cols, kTaskRows);
  parallel_tasks(across, b.rows * b.cols, [&](int64_t task) {
    const int64_t begin = task * kWidth;
    lay_out(b.block(0, begin, b.rows, std::min(kWidth, b.cols - begin)), panels, begin);
  });
  parallel_tasks(across * down, a.rows * a.cols * b.cols, [&](int64_t task) {
    const int64_t row = task / across * kTaskRows, rows = std::min(kTaskRows, a.cols - row);
    const int64_t begin = task % across * kWidth, cols = std::min(kWidth, b.cols - begin);
    // Whole vectors are written: the result's rows have no room for them.
    const int64_t ld = round_up(cols, kLanes<T>);
    const Buffer<T> tile(rows * ld);
    product(a.block(0, row, a.rows, rows), panels, begin, begin + ld, tile.get(), ld, false);
    for (int64_t r = 0; r < rows; ++r)
      std::copy(tile.get() + r * ld, tile.get() + r * ld + cols, out + (row + r) * b.cols + begin);
  });
}

Tensor ordered_product(const Tensor& a, const Tensor& b) {
  const ScalarType dtype = a.scalar_type();
  DC_CHECK((dtype == ScalarType::Float || dtype == ScalarType::Double) && a.dim() == 2, "ordered_product", "a",
           "a float32 or float64 matrix");
  DC_CHECK(b.scalar_type() == dtype && b.dim() == 2 && b.size(0) == a.size(0), "ordered_product", "b",
           "a matrix of a's dtype with a's rows");
  Tensor out = empty({a.size(1), b.size(1)}, dtype, a);
  if (a.size(0) == 0) return torch::stable::zero_(out);
  dispatch_accumulator(dtype, [&](auto zero) {
    using T = decltype(zero);
    multiply(view<T>(a), view<T>(b), static_cast<T*>(out.mutable_data_ptr()));
  });
  return out;
}

}  // namespace
}  // namespace deepclust::cpu

STABLE_TORCH_LIBRARY_IMPL(deepclust, CPU, library) {
  library.impl("ordered_product", TORCH_BOX(&deepclust::cpu::ordered_product));
}
