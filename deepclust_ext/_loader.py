"""Loads the compiled libraries and says what was loaded."""

from __future__ import annotations

import ctypes
import glob
import os
from typing import Any

import torch

from deepclust_ext import _cuda

_HERE = os.path.dirname(os.path.abspath(__file__))
_TORCH_FLOOR = (2, 11)


def _load(name: str) -> str | None:
    """Load the library `name` from the package folder; its path, or None where it was not built."""
    found = sorted(glob.glob(os.path.join(_HERE, f"{name}.so")) + glob.glob(os.path.join(_HERE, f"{name}.*.so")))
    if not found:
        return None
    try:
        torch.ops.load_library(found[0])
    except OSError as error:
        raise ImportError(
            f"deepclust_ext: {os.path.basename(found[0])} does not load with torch {torch.__version__}: {error}\n"
            "  Rebuild it against this torch: "
            "pip install --no-build-isolation --force-reinstall --no-deps --no-cache-dir deepclust_ext"
        ) from error
    return found[0]


def _load_required() -> str:
    """Load `_C`, or raise the one readable error."""
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < _TORCH_FLOOR:
        raise ImportError(f"deepclust_ext: torch {torch.__version__} is too old\n  pip install --upgrade 'torch>=2.11'")
    path = _load("_C")
    if path is None:
        raise ImportError(
            "deepclust_ext: the compiled library _C is missing; in a source checkout build it first\n"
            "  pip install --no-build-isolation -e ."
        )
    return path


def _load_cuda() -> tuple[str | None, str | None]:
    """Load `_C_cuda` where it was built and torch has CUDA: its path, or None and the reason."""
    reason = _cuda.unloadable(torch.__version__, torch.version.cuda)
    if reason is not None:
        return None, reason
    path = _load("_C_cuda")
    if path is None:
        return (
            None,
            "not built: no fitting nvcc at the installation; DEEPCLUST_CUDA=1 pip install ... says what it needs",
        )
    return path, None


SIMD_LEVELS = ("base", "avx2", "avx512")


def _simd_level(path: str) -> str:
    """The level the CPU library runs at; an error where DEEPCLUST_SIMD asks for one that it cannot."""
    library = ctypes.CDLL(path)
    level, problem = library.deepclust_simd_level, library.deepclust_simd_problem
    level.restype = problem.restype = ctypes.c_char_p
    found: str = level().decode()
    asked = os.environ.get("DEEPCLUST_SIMD")
    if problem() == b"unknown":
        raise ImportError(f"deepclust_ext: 'DEEPCLUST_SIMD' must be base, avx2 or avx512, got {asked!r}")
    if problem() == b"missing":
        raise ImportError(
            f"deepclust_ext: 'DEEPCLUST_SIMD' must be a level of this processor, at most {found}, got {asked!r}\n"
            "  unset DEEPCLUST_SIMD   takes the best there is"
        )
    return found


_CPU_LIBRARY = _load_required()
_SIMD_LEVEL = _simd_level(_CPU_LIBRARY)
_CUDA_LIBRARY, _CUDA_REASON = _load_cuda()


def build_info() -> dict[str, Any]:
    """Versions, libraries and processor features this installation runs with.

    Returns
    -------
    dict
        `version`, `torch`, `cpu_library` and `cuda_library` (file names; None where not loaded), `cuda_reason` (why,
        else None), `cuda_architectures` (what the CUDA library is compiled for, as in TORCH_CUDA_ARCH_LIST),
        `simd` (the level the CPU library runs at: base, avx2 or avx512; DEEPCLUST_SIMD in the environment lowers it),
        `threads`, `cuda_devices`.

    Examples
    --------
    >>> import deepclust_ext
    >>> deepclust_ext.build_info()["version"] == deepclust_ext.__version__
    True
    """
    from deepclust_ext._version import __version__

    return {
        "version": __version__,
        "torch": torch.__version__,
        "cpu_library": os.path.basename(_CPU_LIBRARY),
        "cuda_library": os.path.basename(_CUDA_LIBRARY) if _CUDA_LIBRARY else None,
        "cuda_reason": _CUDA_REASON,
        "cuda_architectures": _cuda.built_architectures(_CUDA_LIBRARY) if _CUDA_LIBRARY else [],
        "simd": _SIMD_LEVEL,
        "threads": torch.get_num_threads(),
        "cuda_devices": torch.cuda.device_count(),
    }
