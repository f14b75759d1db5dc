"""A process in which this library, and those of its peers that can be told, use a level of x86 and nothing above it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

# Of this library; of torch, whose kernels, compiled code, MKL and oneDNN choose each for themselves; of the OpenBLAS of
# numpy and scikit-learn; of faiss. superkmeans and scikit-learn-intelex have none and take what there is.
SWITCHES = {
    "base": {
        "DEEPCLUST_SIMD": "base",
        "ATEN_CPU_CAPABILITY": "default",
        "TORCHINDUCTOR_CPP_MARCH": "x86-64",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "OPENBLAS_CORETYPE": "Nehalem",
        "FAISS_OPT_LEVEL": "generic",
    },
    "avx2": {
        "DEEPCLUST_SIMD": "avx2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "TORCHINDUCTOR_CPP_MARCH": "x86-64-v3",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
        "FAISS_OPT_LEVEL": "avx2",
    },
}


def switches_in_use() -> list[str]:
    """The switches that this process was started with, `NAME=value`."""
    names = SWITCHES["avx2"]
    return [f"{name}={os.environ[name]}" for name in names if os.environ.get(name)]


def run_at(level: str, words: Sequence[str]) -> int:
    """`deepclust bench WORDS` in a process held to `level`; its exit status."""
    environment = {**os.environ, **SWITCHES[level]}
    return subprocess.run(
        [sys.executable, "-m", "deepclust_ext", "bench", *words], env=environment, check=False
    ).returncode
