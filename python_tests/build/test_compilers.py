"""What a build does with the compilers and flags that users have."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not (ROOT / "csrc").is_dir(), reason="needs the sources")
KERNELS = sorted(path for path in (ROOT / "csrc/cpu").glob("*/*.cpp") if path.parent.name != "ops")
CROSS = "aarch64-linux-gnu-g++"


def in_setup(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """`code` where setup.py is imported."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import setup; {code}"
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environ}, capture_output=True, text=True, check=False
    )


def script(folder: Path, name: str, text: str = "") -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_a_compiler_that_is_named_must_be_there():
    said = in_setup("setup.check_compiler()", CXX="no-such-g++ -m64")
    assert said.returncode == 1
    assert said.stderr.strip().splitlines() == [
        "deepclust_ext: CXX names a compiler that is not there ('no-such-g++').",
        "  unset CXX   (or install it)",
    ]


def test_any_compiler_will_do(tmp_path):
    script(tmp_path / "bin", "g++")
    found = "print(setup.check_compiler(), __import__('os').environ.get('CXX'))"
    said = in_setup(found, CXX="", PATH=str(tmp_path / "bin"))
    assert said.stdout == "g++ g++\n"  # torch would look for c++
    said = in_setup(found, CXX="", PATH=str(tmp_path / "none"))
    assert "deepclust_ext: no C++ compiler found.\n  apt-get install g++" in said.stderr


def test_an_old_setuptools_is_one_sentence():
    said = in_setup("import setuptools; setuptools.__version__ = '68.1.2'; setup.check_setuptools()")
    assert said.stderr.strip().splitlines() == [
        "deepclust_ext: setuptools 68.1.2 is too old: it must be 77 or newer.",
        "  pip install --upgrade 'setuptools>=77'   (or drop --no-build-isolation)",
    ]
    assert in_setup("setup.check_setuptools()").returncode == 0


def test_a_machine_in_cflags_is_undone_for_gpp_alone(tmp_path, monkeypatch):
    script(tmp_path, "gcc-like", "echo '#define __GNUC__ 12'")
    script(tmp_path, "clang-like", "echo '#define __clang__ 1'")
    code = f"print([setup.machine_flags({str(tmp_path)!r} + '/' + name) for name in ('gcc-like', 'clang-like')])"
    said = in_setup(f"import platform; platform.machine = lambda: 'x86_64'; {code}")
    assert said.stdout == "[['-march=x86-64', '-mtune=generic'], []]\n"
    assert in_setup(f"import platform; platform.machine = lambda: 'aarch64'; {code}").stdout == "[[], []]\n"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="levels of x86-64")
@pytest.mark.parametrize("march", ["native", "x86-64-v4"])
def test_a_machine_in_cflags_compiles(march, tmp_path):
    """g++ 12 crashed where the base was as new as a level."""
    ours = in_setup("print(' '.join([*setup.CXX_FLAGS, *setup.machine_flags('g++')]))").stdout.split()
    source = ROOT / "csrc/cpu/mi/joint.cpp"
    command = ["g++", f"-march={march}", *ours, "-fPIC", "-c", source, "-o", tmp_path / "one.o"]
    subprocess.run(command, check=True)


@pytest.mark.parametrize(
    ("flags", "stays"),
    [
        ("", False),
        ("-O2 -march=native", False),
        ("-g", True),
        ("-ggdb3 -O0", True),
        ("-g1", True),
        ("-gdwarf-4", True),
        ("-g -g0", False),
        ("-fno-gnu-unique", False),
    ],
)
@pytest.mark.parametrize("name", ["CFLAGS", "CXXFLAGS"])
def test_debug_symbols_are_left_out_unless_asked_for(name, flags, stays):
    said = in_setup("import os; print(setup.debug_flags(os.environ))", **{"CFLAGS": "", "CXXFLAGS": "", name: flags})
    assert said.stdout == ("[]\n" if stays else "['-g0']\n")


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_our_flags_leave_no_debug_symbols_and_no_warning(compiler, tmp_path):
    """After those of most Pythons; clang++ takes contraction back with -fno-fast-math."""
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    source = tmp_path / "one.cpp"
    source.write_text("double f(double x, double y, double z) { return x * y + z; }\n")
    ours = in_setup("print(' '.join([*setup.CXX_FLAGS, *setup.debug_flags({})]))").stdout.split()
    command = [compiler, "-g", "-O3", "-Wall", *ours, "-Werror", "-c", source, "-o", tmp_path / "one.o"]
    subprocess.run(command, check=True)
    assert b".debug_info" not in (tmp_path / "one.o").read_bytes()


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_fast_math_is_undone_and_refused(tmp_path):
    source = tmp_path / "one.cpp"
    source.write_text('#include "common/macros.h"\n#include <cmath>\nbool f(double x) { return std::isnan(x); }\n')

    def compiled(*flags: str) -> subprocess.CompletedProcess[str]:
        command = ["g++", *flags, "-I", ROOT / "csrc", "-c", source, "-o", tmp_path / "one.o"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    ours = in_setup("print(' '.join(setup.CXX_FLAGS))").stdout.split()
    for flag in ("-ffast-math", "-Ofast", "-ffinite-math-only"):
        refused = compiled(flag, "-std=c++20")
        assert refused.returncode != 0
        assert "compile it without -ffast-math" in refused.stderr
        assert compiled(flag, *ours).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(CROSS) is None, reason=f"needs {CROSS}")
@pytest.mark.parametrize("source", KERNELS, ids=lambda path: path.stem)
def test_kernels_compile_for_arm(source, tmp_path):
    """macOS and Graviton: one level, of plain code."""
    # Code must come out, which -fsyntax-only does not try. -O0 takes half of the time of -O1.
    command = [CROSS, "-std=c++20", "-O0", "-Wall", "-Werror", "-Wno-psabi", "-c", source, "-o", tmp_path / "one.o"]
    subprocess.run(command, check=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("clang++") is None, reason="needs clang++")
@pytest.mark.parametrize("source", KERNELS, ids=lambda path: path.stem)
def test_kernels_compile_with_clang(source, tmp_path):
    command = ["clang++", "-std=c++20", "-O0", "-Wall", "-Werror", "-Wno-psabi", "-fPIC", "-c", source]
    subprocess.run([*command, "-o", tmp_path / "one.o"], check=True)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="levels of x86-64")
@pytest.mark.parametrize(
    "source", [path for path in KERNELS if path.parent.name in ("gemm", "kmeans", "knn")], ids=lambda path: path.stem
)
def test_kernels_compile_at_one_level(source):
    """What clang sees of them, where it is not here: nothing of AMX."""
    flags = ["-std=c++20", "-march=x86-64-v3", "-DDC_ONE_LEVEL", "-Wall", "-Werror", "-Wno-psabi"]
    subprocess.run(["g++", "-fsyntax-only", *flags, source], check=True)


def driven(folder: Path, compiler: str, *flags: str, emulator: tuple[str, ...] = ()) -> list[list[str]]:
    """The lines of kernels_driver.cpp, in words."""
    sources = [Path(__file__).with_name("kernels_driver.cpp")]
    sources += [path for path in KERNELS if path.parent.name in ("codes", "gemm", "kmeans", "knn", "mi", "simd")]
    command = [compiler, "-std=c++20", "-O1", "-Wno-psabi", *flags, "-I", ROOT / "csrc", *sources]
    subprocess.run([*command, "-o", folder / "driver"], check=True)
    ended = subprocess.run([*emulator, folder / "driver"], capture_output=True, text=True, check=True)
    return [line.split() for line in ended.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(CROSS) is None, reason=f"needs {CROSS}")
@pytest.mark.skipif(shutil.which("qemu-aarch64") is None, reason="needs qemu-aarch64")
def test_kernels_give_on_arm_what_they_give_here(tmp_path):
    """Whole numbers to the bit, others to rounding."""
    (tmp_path / "here").mkdir()
    (tmp_path / "arm").mkdir()
    here = driven(tmp_path / "here", "g++")
    arm = driven(tmp_path / "arm", CROSS, "-static", emulator=("qemu-aarch64",))
    assert len(here) == len(arm) >= 20
    for want, got in zip(here, arm, strict=True):
        assert got[:3] == want[:3]
        if want[0] == "exact":
            assert got == want
        else:
            rtol = 2e-5 if want[2] == "4" else 1e-12
            assert float(got[3]) == pytest.approx(float(want[3]), rel=rtol, abs=rtol)
