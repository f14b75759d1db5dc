"""Builds the extension. Everything else about the package stands in pyproject.toml."""

from __future__ import annotations

import glob
import os
import shutil
import sys

from setuptools import setup

TORCH_FLOOR = (2, 11)


def fail(problem: str, mend: str) -> None:
    """End the build with one message that names the command which mends it."""
    sys.exit(f"\ndeepclust_ext: {problem}\n  {mend}\n")


def check_torch() -> None:
    """Refuse to build without torch, or with one older than the ABI we target."""
    try:
        import torch
    except ImportError:
        fail("torch is not installed.", "pip install 'torch>=2.11'   (or drop --no-build-isolation)")
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < TORCH_FLOOR:
        fail(f"torch {torch.__version__} is too old.", "pip install --upgrade 'torch>=2.11'")


def check_compiler() -> None:
    """Refuse to build without a C++ compiler."""
    compiler = os.environ.get("CXX", "c++").split()[0]
    if shutil.which(compiler) is None and shutil.which("g++") is None:
        fail(f"no C++ compiler found ('{compiler}').", "apt-get install g++   (or set CXX)")


def have_ninja() -> bool:
    """Whether ninja is there; without it the build still works, one file at a time."""
    from torch.utils.cpp_extension import is_ninja_available

    if is_ninja_available():
        return True
    print(
        "deepclust_ext: ninja not found, building one file at a time.\n  pip install ninja   builds faster",
        file=sys.stderr,
    )
    return False


def cpu_extension():
    """The CPU library `_C`: no nvcc, no Python API, one binary for every torch from 2.11 on."""
    from torch.utils.cpp_extension import CppExtension

    target = f"0x{TORCH_FLOOR[0]:02x}{TORCH_FLOOR[1]:02x}000000000000"
    return CppExtension(
        "deepclust_ext._C",
        sorted(["csrc/library.cpp", *glob.glob("csrc/cpu/*.cpp")]),
        extra_compile_args={
            "cxx": [
                "-O3",
                "-std=c++20",
                "-fvisibility=hidden",
                "-ffp-contract=fast",
                "-fno-math-errno",
                "-Wall",
                "-Wno-psabi",
                f"-DTORCH_TARGET_VERSION={target}",
            ]
        },
        depends=sorted(glob.glob("csrc/**/*.h", recursive=True)),
        py_limited_api=True,
    )


check_torch()
check_compiler()

from torch.utils.cpp_extension import BuildExtension  # noqa: E402 - after the checks, so that they speak first

setup(
    ext_modules=[cpu_extension()],
    cmdclass={"build_ext": BuildExtension.with_options(use_ninja=have_ninja(), no_python_abi_suffix=True)},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
