// Row-major matrix products as cuBLAS, which counts in columns, wants them.
#pragma once

#include <cstdint>
#include <utility>

#include "../common/dtype.h"

namespace deepclust::cuda {

// out[b] (m, n) = op(a[b]) (m, k) op(b[b]) (k, n) for every batch item, all dense and row-major, where op transposes
// what is stored the other way round. `stored` is the dtype of a and b; out has the accumulator's.
struct Product {
  int64_t batch, m, n, k;
  const void* a;
  const void* b;
  void* out;
  bool a_transposed, b_transposed;
  DType stored;
};

// The same product for a column-major library: a row-major matrix is its own transpose there, so the sides change
// places and out^T = op(b)^T op(a)^T is asked for.
struct ColumnMajorProduct {
  bool a_transposed, b_transposed;
  int64_t m, n, k;
  const void* a;
  int64_t lda, stride_a;
  const void* b;
  int64_t ldb, stride_b;
  void* c;
  int64_t ldc, stride_c;
  int64_t batch;

  explicit ColumnMajorProduct(const Product& p)
      : a_transposed(p.b_transposed),
        b_transposed(p.a_transposed),
        m(p.n),
        n(p.m),
        k(p.k),
        a(p.b),
        lda(p.b_transposed ? p.k : p.n),
        stride_a(p.k * p.n),
        b(p.a),
        ldb(p.a_transposed ? p.m : p.k),
        stride_b(p.m * p.k),
        c(p.out),
        ldc(p.n),
        stride_c(p.m * p.n),
        batch(p.batch) {}
};

// By cuBLAS, on the handle's stream. float32 stays float32 whatever torch allows its own products; half types multiply
// on the tensor cores and sum in float32.
void multiply(const Product& product, void* handle);

}  // namespace deepclust::cuda
