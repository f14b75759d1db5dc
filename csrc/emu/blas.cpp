// cuBLAS's part on the emulator: the same column-major call, spelled out.
#include "../cuda/blas.h"

#include "../common/accumulator.h"

namespace deepclust::cuda {

void multiply(const Product& product, void*) {
  const ColumnMajorProduct p(product);
  dispatch_stored(product.stored, [&](auto zero) {
    using E = decltype(zero);
    using T = accumulator_t<E>;
    const auto at = [](const void* base, int64_t item, int64_t stride, int64_t ld, int64_t row, int64_t col) {
      return read(static_cast<const E*>(base)[item * stride + col * ld + row]);
    };
    for (int64_t item = 0; item < p.batch; ++item)
      for (int64_t col = 0; col < p.n; ++col)
        for (int64_t row = 0; row < p.m; ++row) {
          T sum = 0;
          for (int64_t k = 0; k < p.k; ++k) {
            const T a = at(p.a, item, p.stride_a, p.lda, p.a_transposed ? k : row, p.a_transposed ? row : k);
            const T b = at(p.b, item, p.stride_b, p.ldb, p.b_transposed ? col : k, p.b_transposed ? k : col);
            sum += a * b;
          }
          static_cast<T*>(p.c)[item * p.stride_c + col * p.ldc + row] = sum;
        }
  });
}

}  // namespace deepclust::cuda
