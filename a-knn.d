knn.o: csrc/cpu/ops/knn.cpp csrc/cpu/ops/../knn/knn.h \
 csrc/cpu/ops/../knn/../codes/knn_codes.h \
 csrc/cpu/ops/../knn/../codes/../gemm/gemm_tile_int8.h \
 csrc/cpu/ops/../knn/../codes/../gemm/gemm_tile.h \
 csrc/cpu/ops/../knn/../codes/../gemm/../../common/matrix.h \
 csrc/cpu/ops/../knn/../codes/../gemm/../../common/macros.h \
 csrc/cpu/ops/../knn/../codes/../gemm/../simd/vectors.h \
 csrc/cpu/ops/../knn/../codes/../gemm/../simd/../../common/accumulator.h \
 csrc/cpu/ops/../knn/../codes/../gemm/../simd/../../common/arithmetic.h \
 csrc/cpu/ops/../knn/../codes/../gemm/../simd/level.h \
 csrc/cpu/ops/../knn/../gemm/gemm_tile_bf16.h \
 csrc/cpu/ops/../knn/../gemm/vnni.h csrc/cpu/ops/../knn/lists.h \
 csrc/cpu/ops/../knn/../../common/buffer.h csrc/cpu/ops/../knn/bounds.h \
 csrc/cpu/ops/../knn/../gemm/int16_tile.h csrc/cpu/ops/../knn/lanes.h \
 csrc/cpu/ops/../../torch/dispatch.h csrc/cpu/ops/../../torch/stable.h \
 csrc/cpu/ops/../../torch/knn_checks.h csrc/cpu/ops/../../torch/checks.h \
 csrc/cpu/ops/../../torch/parallel.h
csrc/cpu/ops/../knn/knn.h:
csrc/cpu/ops/../knn/../codes/knn_codes.h:
csrc/cpu/ops/../knn/../codes/../gemm/gemm_tile_int8.h:
csrc/cpu/ops/../knn/../codes/../gemm/gemm_tile.h:
csrc/cpu/ops/../knn/../codes/../gemm/../../common/matrix.h:
csrc/cpu/ops/../knn/../codes/../gemm/../../common/macros.h:
csrc/cpu/ops/../knn/../codes/../gemm/../simd/vectors.h:
csrc/cpu/ops/../knn/../codes/../gemm/../simd/../../common/accumulator.h:
csrc/cpu/ops/../knn/../codes/../gemm/../simd/../../common/arithmetic.h:
csrc/cpu/ops/../knn/../codes/../gemm/../simd/level.h:
csrc/cpu/ops/../knn/../gemm/gemm_tile_bf16.h:
csrc/cpu/ops/../knn/../gemm/vnni.h:
csrc/cpu/ops/../knn/lists.h:
csrc/cpu/ops/../knn/../../common/buffer.h:
csrc/cpu/ops/../knn/bounds.h:
csrc/cpu/ops/../knn/../gemm/int16_tile.h:
csrc/cpu/ops/../knn/lanes.h:
csrc/cpu/ops/../../torch/dispatch.h:
csrc/cpu/ops/../../torch/stable.h:
csrc/cpu/ops/../../torch/knn_checks.h:
csrc/cpu/ops/../../torch/checks.h:
csrc/cpu/ops/../../torch/parallel.h:
