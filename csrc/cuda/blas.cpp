#include "blas.h"

#include <cublas_v2.h>

#include <stdexcept>
#include <string>

namespace deepclust::cuda {
namespace {

struct Types {
  cudaDataType stored, out;
  cublasComputeType_t compute;
};

Types types_of(DType stored) {
  switch (stored) {
    case DType::kHalf: return {CUDA_R_16F, CUDA_R_32F, CUBLAS_COMPUTE_32F};
    case DType::kBFloat16: return {CUDA_R_16BF, CUDA_R_32F, CUBLAS_COMPUTE_32F};
    case DType::kFloat: return {CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F_PEDANTIC};  // never TF32
    case DType::kDouble: break;
  }
  return {CUDA_R_64F, CUDA_R_64F, CUBLAS_COMPUTE_64F};
}

}  // namespace

void multiply(const Product& product, void* handle) {
  const ColumnMajorProduct p(product);
  const Types types = types_of(product.stored);
  const auto op = [](bool transposed) { return transposed ? CUBLAS_OP_T : CUBLAS_OP_N; };
  const float one = 1, zero = 0;
  const double one64 = 1, zero64 = 0;
  const bool wide = product.stored == DType::kDouble;
  const cublasStatus_t status = cublasGemmStridedBatchedEx_64(
      static_cast<cublasHandle_t>(handle), op(p.a_transposed), op(p.b_transposed), p.m, p.n, p.k,
      wide ? static_cast<const void*>(&one64) : &one, p.a, types.stored, p.lda, p.stride_a, p.b, types.stored, p.ldb,
      p.stride_b, wide ? static_cast<const void*>(&zero64) : &zero, p.c, types.out, p.ldc, p.stride_c, p.batch,
      types.compute, CUBLAS_GEMM_DEFAULT);
  if (status != CUBLAS_STATUS_SUCCESS)
    throw std::runtime_error(std::string("deepclust_ext: cuBLAS refused a product: ") + cublasGetStatusString(status));
}

}  // namespace deepclust::cuda
