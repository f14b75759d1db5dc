// a^T b by cuBLAS, which is its whole kernel: float32 that stays float32, where torch's own product follows its switch
// for TF32. The CPU's threads have no part in it.
#include "../torch/checks.h"
#include "../torch/cuda_arguments.h"
#include "blas.h"

namespace deepclust::cuda {

// (a [k, m], b [k, n]) -> [m, n].
Tensor ordered_product(const Tensor& a, const Tensor& b) {
  const ScalarType dtype = a.scalar_type();
  DC_CHECK((dtype == ScalarType::Float || dtype == ScalarType::Double) && a.dim() == 2, "ordered_product", "a",
           "a float32 or float64 matrix");
  DC_CHECK(b.scalar_type() == dtype && b.dim() == 2 && b.size(0) == a.size(0), "ordered_product", "b",
           "a matrix of a's dtype with a's rows");
  check_same_device("ordered_product", "a", a, "b", b);
  const DeviceScope scope(a);
  Tensor out = empty({a.size(1), b.size(1)}, dtype, a);
  if (out.numel() == 0 || a.size(0) == 0) return torch::stable::zero_(out);
  // A transposed matrix is read as it lies: its rows are the columns of what is stored.
  const bool a_stored = a.stride(0) == 1 && a.stride(1) == a.size(0);
  const Tensor left = a_stored ? dense_on_bound(torch::stable::transpose(a, 0, 1)) : dense_on_bound(a);
  const Tensor right = dense_on_bound(b);
  multiply({1, a.size(1), b.size(1), a.size(0), left.data_ptr(), right.data_ptr(), out.mutable_data_ptr(), !a_stored,
            false, dtype_of(a)},
           blas_handle());
  return out;
}

}  // namespace deepclust::cuda

STABLE_TORCH_LIBRARY_IMPL(deepclust, CUDA, library) {
  library.impl("ordered_product", TORCH_BOX(&deepclust::cuda::ordered_product));
}
