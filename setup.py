"""Builds the extension: `_C`, and `_C_cuda` where there is a CUDA compiler. The rest stands in pyproject.toml."""

from __future__ import annotations

import glob
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping

from setuptools import setup

sys.path.append(os.path.dirname(os.path.abspath(__file__)))  # pip's build does not search the folder of setup.py
import setup_cuda

TORCH_FLOOR = (2, 11)
SETUPTOOLS_FLOOR = 77  # of pyproject.toml
CXX_FLAGS = [
    "-O3",
    "-std=c++20",
    "-fvisibility=hidden",
    # After what CFLAGS holds: NaN and infinity are looked for.
    "-fno-fast-math",
    "-fno-finite-math-only",
    "-ffp-contract=fast",  # after -fno-fast-math, with which clang++ takes it back
    "-fno-math-errno",
    "-Wall",
    "-Wno-psabi",
    f"-DTORCH_TARGET_VERSION=0x{TORCH_FLOOR[0]:02x}{TORCH_FLOOR[1]:02x}000000000000",
]


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


# At the link, CFLAGS stands as well: -ffast-math there would switch off small numbers for the whole process.
LINK_FLAGS = ["-O3", "-fno-fast-math"]


def check_setuptools() -> None:
    """Refuse a setuptools that cannot read pyproject.toml, as --no-build-isolation may find one."""
    import setuptools

    if int(setuptools.__version__.split(".")[0]) < SETUPTOOLS_FLOOR:
        fail(
            f"setuptools {setuptools.__version__} is too old: it must be {SETUPTOOLS_FLOOR} or newer.",
            f"pip install --upgrade 'setuptools>={SETUPTOOLS_FLOOR}'   (or drop --no-build-isolation)",
        )


def check_compiler() -> str:
    """The C++ compiler; refuses to build without one, or without the one that CXX names."""
    named = os.environ.get("CXX", "").split()
    if named and shutil.which(named[0]) is None:
        fail(f"CXX names a compiler that is not there ('{named[0]}').", "unset CXX   (or install it)")
    found = next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
    if not named and found is None:
        fail("no C++ compiler found.", "apt-get install g++   (or set CXX)")
    if not named and found != "c++":
        os.environ["CXX"] = found  # torch looks for c++ alone
    return named[0] if named else found


def machine_flags(compiler: str) -> list[str]:
    """What undoes -march in CFLAGS: g++ compiles every kernel for each level of x86-64, over the oldest one.

    clang++ compiles one level, and keeps the -march that it is given.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return []
    ended = subprocess.run(
        [compiler, "-dM", "-E", "-x", "c++", os.devnull], capture_output=True, text=True, check=False
    )
    return [] if "__clang__" in ended.stdout else ["-march=x86-64", "-mtune=generic"]


def debug_flags(environ: Mapping[str, str]) -> list[str]:
    """What undoes the -g that most Pythons compile extensions with, 15 MB of ours; a -g in CFLAGS or CXXFLAGS stays.

    Names of functions are kept, for stack traces and profilers.
    """
    words = f"{environ.get('CFLAGS', '')} {environ.get('CXXFLAGS', '')}".split()
    asked = [word for word in words if re.fullmatch(r"-g(gdb|dwarf)?(-?\d)?", word)]
    return [] if asked and asked[-1] != "-g0" else ["-g0"]


def path_flags() -> list[str]:
    """What takes the folders of the builder's machine out of __FILE__, which errors show and the library holds."""
    import torch

    ours, torchs = (os.path.abspath(path) for path in (__file__, os.path.dirname(torch.__file__)))
    # The last that fits decides: torch may lie in a virtual environment within our folder.
    return [f"-fmacro-prefix-map={os.path.dirname(path)}{os.sep}=" for path in (ours, torchs)]


def cxx_flags(compiler: str) -> list[str]:
    """Flags for every C++ file."""
    return [*CXX_FLAGS, *machine_flags(compiler), *debug_flags(os.environ), *path_flags()]


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


def cpu_extension(compiler: str):
    """The CPU library `_C`: no nvcc, no Python API, one binary for every torch from 2.11 on."""
    from torch.utils.cpp_extension import CppExtension

    return CppExtension(
        "deepclust_ext._C",
        sorted(["csrc/library.cpp", *glob.glob("csrc/cpu/*/*.cpp")]),
        extra_compile_args={"cxx": cxx_flags(compiler)},
        extra_link_args=LINK_FLAGS,
        depends=sorted(glob.glob("csrc/**/*.h", recursive=True)),
        py_limited_api=True,
    )


def cuda_toolkit() -> setup_cuda.Toolkit | None:
    """The CUDA toolkit to build `_C_cuda` with, or None for a build without; DEEPCLUST_CUDA decides, never a GPU."""
    import torch

    mode = "1"
    try:
        mode = setup_cuda.mode(os.environ)
        if mode == "0":
            return None
        toolkit = setup_cuda.find_toolkit(os.environ, torch.version.cuda)
        setup_cuda.try_compile(toolkit)
    except setup_cuda.Unfit as unfit:
        if mode == "1":
            fail(unfit.problem, unfit.mend)
        print(f"deepclust_ext: building without CUDA: {unfit.problem}  For CUDA: {unfit.mend}", file=sys.stderr)
        return None
    return toolkit


def cuda_extension(toolkit: setup_cuda.Toolkit, compiler: str):
    """The CUDA library `_C_cuda`: nvcc sees kernels alone, g++ the files that speak to torch."""
    import torch
    from torch.utils.cpp_extension import CppExtension

    def capabilities() -> list[tuple[int, int]]:
        return [torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())]

    try:
        architectures = setup_cuda.choose_architectures(
            os.environ.get("TORCH_CUDA_ARCH_LIST", ""), setup_cuda.known_architectures(toolkit.nvcc), capabilities
        )
    except setup_cuda.Unfit as unfit:  # asked for by name, so an error in auto mode too
        fail(unfit.problem, unfit.mend)
    return CppExtension(
        "deepclust_ext._C_cuda",
        # ninja starts them in this order, and what takes longest is not to run alone at the end.
        [*sorted(glob.glob("csrc/cuda/*.cu")), *sorted(glob.glob("csrc/cuda/*.cpp"))],
        include_dirs=toolkit.include_folders,
        libraries=["torch_cuda"],
        # Undefined symbols show now and not at the import; a library that no file uses yet is left out.
        extra_link_args=[*LINK_FLAGS, "-Wl,--no-undefined", "-Wl,--as-needed", *toolkit.libraries],
        extra_compile_args={
            # USE_CUDA shows the stable ABI's own CUDA functions.
            "cxx": [*cxx_flags(compiler), "-DUSE_CUDA", f'-DDC_CUDA_ARCHITECTURES="{" ".join(architectures)}"'],
            # Always our own -gencode flags: without a GPU, torch's choice of them raises an IndexError.
            "nvcc": [*setup_cuda.NVCC_FLAGS, *setup_cuda.gencode_flags(architectures)],
        },
        depends=sorted(glob.glob("csrc/**/*.h", recursive=True) + glob.glob("csrc/cuda/*.cuh")),
        py_limited_api=True,
    )


def build_command():
    """The build that torch brings, with one object file a source: mi_loss.cu and mi_loss.cpp lie side by side."""
    from torch.utils.cpp_extension import BuildExtension

    class Build(BuildExtension):
        def build_extensions(self) -> None:
            def object_filenames(sources, strip_dir=False, output_dir=""):
                names = map(os.path.basename, sources) if strip_dir else sources
                return [os.path.join(output_dir or "", f"{name}.o") for name in names]

            self.compiler.object_filenames = object_filenames
            super().build_extensions()

    return Build.with_options(use_ninja=have_ninja(), no_python_abi_suffix=True)


def main() -> None:
    """Build and install what this machine allows."""
    check_setuptools()
    check_torch()
    compiler = check_compiler()
    toolkit = cuda_toolkit()
    if toolkit is not None:
        os.environ["CUDA_HOME"] = toolkit.home  # torch.utils.cpp_extension reads it when it is first imported
        limit = setup_cuda.job_limit(len(os.sched_getaffinity(0)), setup_cuda.available_memory())
        os.environ.setdefault("MAX_JOBS", str(limit))
    setup(
        ext_modules=[cpu_extension(compiler), *([cuda_extension(toolkit, compiler)] if toolkit else [])],
        cmdclass={"build_ext": build_command()},
        options={"bdist_wheel": {"py_limited_api": "cp310"}},
    )


if __name__ == "__main__":
    main()
