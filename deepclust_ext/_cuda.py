"""Which GPUs the CUDA library has code for, and why it is not loaded where it is not."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
from collections.abc import Iterable, Sequence


def unloadable(torch_version: str, torch_cuda: str | None, runtime: int | None) -> str | None:
    """Why `_C_cuda`, linked to that major version of the CUDA runtime, cannot be loaded under this torch.

    Asked before loading, because a library for a torch with CUDA may be installed beside one without, or for another
    CUDA: pip builds against a torch of its own. The runtime is torch's own, which has the current device and stream.
    """
    if torch_cuda is None:
        return f"torch {torch_version} is built without CUDA; install a torch for CUDA"
    if runtime is not None and runtime != int(torch_cuda.split(".")[0]):
        return (
            f"_C_cuda is built for CUDA {runtime}, and torch {torch_version} for CUDA {torch_cuda}; rebuild it: "
            "DEEPCLUST_CUDA=1 pip install --no-build-isolation --force-reinstall --no-deps --no-cache-dir deepclust_ext"
        )
    return None


def linked_runtime(path: str) -> int | None:
    """The major version of the CUDA runtime that the library at `path` is linked to, without loading it."""
    if os.path.getsize(path) == 0:
        return None
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found = re.search(rb"libcudart\.so\.(\d+)\0", content)
        return int(found[1]) if found else None


def built_architectures(path: str) -> list[str]:
    """What the library at `path` was compiled for, as in TORCH_CUDA_ARCH_LIST."""
    text = ctypes.c_char_p.in_dll(ctypes.CDLL(path), "deepclust_cuda_architectures").value
    return (text or b"").decode().split()


def covers(capability: tuple[int, int], architectures: Iterable[str]) -> bool:
    """Whether a GPU of this compute capability finds code it can run.

    Machine code runs on its own major version, from its own minor version on; PTX is translated for every later GPU.

    Parameters
    ----------
    capability
        (major, minor), as `torch.cuda.get_device_capability` gives it.
    architectures
        Such as "8.0", "9.0+PTX" (machine code and PTX) or "9.0a" (that GPU and no other).

    Returns
    -------
    bool
        Whether one of them fits.

    Raises
    ------
    ValueError
        For a word that is no architecture.

    References
    ----------
    CUDA C++ Programming Guide, "Application Compatibility".

    Examples
    --------
    >>> covers((8, 9), ["8.0"]), covers((8, 0), ["8.6"]), covers((12, 1), ["8.0", "9.0+PTX"])
    (True, False, True)
    """
    for architecture in architectures:
        found = re.fullmatch(r"(\d+)\.(\d)([af]?)(\+PTX)?", architecture)
        if found is None:
            raise ValueError(f"covers: 'architectures' must hold words such as '9.0+PTX', got '{architecture}'")
        built = (int(found[1]), int(found[2]))
        if found[3] == "a":  # for one GPU, its PTX too
            fits = capability == built
        else:
            later = capability >= built if found[4] and not found[3] else False
            fits = later or (capability[0] == built[0] and capability[1] >= built[1])
        if fits:
            return True
    return False


def uncovered(names: Sequence[str], capabilities: Sequence[tuple[int, int]], architectures: Sequence[str]) -> list[str]:
    """A warning for each GPU that the library has no code for, with the command that mends it."""
    return [
        f"{name} has compute capability {major}.{minor}, and _C_cuda is built for {' '.join(architectures)}: "
        f"TORCH_CUDA_ARCH_LIST={major}.{minor} "
        "pip install --force-reinstall --no-deps --no-cache-dir deepclust_ext"
        for name, (major, minor) in zip(names, capabilities, strict=True)
        if not covers((major, minor), architectures)
    ]
