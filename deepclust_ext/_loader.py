"""Loads the compiled libraries and says what was loaded."""

from __future__ import annotations

import ctypes
import glob
import os
import sys
from typing import Any

import torch

from deepclust_ext import _cuda

_HERE = os.path.dirname(os.path.abspath(__file__))
_TORCH_FLOOR = (2, 11)


def _find(name: str, folder: str = _HERE) -> str | None:
    """The path of the library `name` in a package folder, or None where it was not built."""
    found = glob.glob(os.path.join(folder, f"{name}.so")) + glob.glob(os.path.join(folder, f"{name}.*.so"))
    return min(found, default=None)


def _load(path: str) -> None:
    """Load a library, or raise the one readable error."""
    try:
        torch.ops.load_library(path)
    except OSError as error:
        raise ImportError(
            f"deepclust_ext: {os.path.basename(path)} does not load with torch {torch.__version__}: {error}\n"
            "  Rebuild it against this torch: "
            "pip install --no-build-isolation --force-reinstall --no-deps --no-cache-dir deepclust_ext"
        ) from error


def _hidden() -> str | None:
    """The folder of another, built copy of this package that this one stands before on the path."""
    folders = [os.path.join(os.path.abspath(folder), "deepclust_ext") for folder in sys.path]
    others = [folder for folder in folders if os.path.realpath(folder) != os.path.realpath(_HERE)]
    return next((folder for folder in others if _find("_C", folder) is not None), None)


def _load_required() -> str:
    """Load `_C`, or raise the one readable error."""
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < _TORCH_FLOOR:
        raise ImportError(f"deepclust_ext: torch {torch.__version__} is too old\n  pip install --upgrade 'torch>=2.11'")
    path = _find("_C")
    hidden = _hidden() if path is None else None
    if hidden is not None:
        raise ImportError(
            f"deepclust_ext: the source checkout {_HERE}, which is not built, hides the installed package {hidden}\n"
            f"  run Python in another folder than {os.path.dirname(_HERE)}, or build the checkout: "
            "pip install --no-build-isolation -e ."
        )
    if path is None:
        raise ImportError(
            "deepclust_ext: the compiled library _C is missing; in a source checkout build it first\n"
            "  pip install --no-build-isolation -e ."
        )
    _load(path)
    return path


def _load_cuda() -> tuple[str | None, str | None]:
    """Load `_C_cuda` where it was built and torch has CUDA: its path, or None and the reason."""
    path = _find("_C_cuda")
    reason = _cuda.unloadable(torch.__version__, torch.version.cuda, _cuda.linked_runtime(path) if path else None)
    if reason is not None:
        return None, reason
    if path is None:
        return (
            None,
            "not built: no fitting nvcc at the installation; DEEPCLUST_CUDA=1 pip install ... says what it needs",
        )
    _load(path)
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
        `cuda_runtime` (the major version of CUDA that torch must have for it; None where not loaded),
        `simd` (the level the CPU library runs at: base, avx2 or avx512; DEEPCLUST_SIMD in the environment lowers it),
        `amx` (whether searches multiply by the processor's tiles; DEEPCLUST_NO_AMX in the environment turns that off),
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
        "cuda_runtime": _cuda.linked_runtime(_CUDA_LIBRARY) if _CUDA_LIBRARY else None,
        "cuda_architectures": _cuda.built_architectures(_CUDA_LIBRARY) if _CUDA_LIBRARY else [],
        "simd": _SIMD_LEVEL,
        "amx": bool(ctypes.CDLL(_CPU_LIBRARY).deepclust_have_amx()),
        "threads": torch.get_num_threads(),
        "cuda_devices": torch.cuda.device_count(),
    }
