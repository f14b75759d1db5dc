"""nvcc as `make` calls it: keeps ptxas' report on each kernel, so that the test of the budget need not compile again.

PYTORCH_NVCC="python python_tests/support/nvcc.py" pip install ...
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ptxas_budget


def main(words: list[str]) -> int:
    """Compile; with warnings as errors first, which is what the budget asks for, and without where that fails."""
    toolkit_nvcc = os.path.join(os.environ["CUDA_HOME"], "bin", "nvcc")
    source = next((Path(word) for word in words if word.endswith(".cu")), None)
    wanted = [flag for flag in ptxas_budget.FLAGS if flag not in ptxas_budget.STRICT]
    same = set(wanted) <= set(words) and _kernels(words) == _kernels(wanted)
    if source is not None and same:
        release = ptxas_budget.setup_cuda.release(toolkit_nvcc)
        done = subprocess.run([toolkit_nvcc, *words, *ptxas_budget.STRICT], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            report = ptxas_budget.report_path(source, release, ptxas_budget.FLAGS, ptxas_budget.CACHE)
            ptxas_budget.keep_report(report, done.stdout + done.stderr)
            return 0
    return subprocess.run([toolkit_nvcc, *words], check=False).returncode


def _kernels(words: list[str]) -> list[str]:
    """The architectures that machine code is asked for."""
    return sorted(word for word in words if word.startswith("-gencode") and ",code=sm_" in word)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
