gemm_tile_bf16.o: csrc/cpu/gemm/gemm_tile_bf16.cpp \
 csrc/cpu/gemm/gemm_tile_bf16.h csrc/cpu/gemm/gemm_tile.h \
 csrc/cpu/gemm/../../common/matrix.h csrc/cpu/gemm/../../common/macros.h \
 csrc/cpu/gemm/../simd/vectors.h \
 csrc/cpu/gemm/../simd/../../common/accumulator.h \
 csrc/cpu/gemm/../simd/../../common/arithmetic.h \
 csrc/cpu/gemm/../simd/level.h
csrc/cpu/gemm/gemm_tile_bf16.h:
csrc/cpu/gemm/gemm_tile.h:
csrc/cpu/gemm/../../common/matrix.h:
csrc/cpu/gemm/../../common/macros.h:
csrc/cpu/gemm/../simd/vectors.h:
csrc/cpu/gemm/../simd/../../common/accumulator.h:
csrc/cpu/gemm/../simd/../../common/arithmetic.h:
csrc/cpu/gemm/../simd/level.h:
