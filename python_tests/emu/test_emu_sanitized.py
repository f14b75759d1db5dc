"""The emulator's tests again, under the address and undefined-behaviour sanitizers: they see what NaN cannot show.

In one order of threads, for which addresses a kernel reads and writes does not depend on it; in all six with
`pytest -m exhaustive`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.emulator import ROOT, crash

BUILT = ROOT / "build" / "emu-asan"

if not (BUILT / "_emu.so").exists():
    pytest.skip(f"{BUILT / '_emu.so'} is not built: make emu", allow_module_level=True)
if shutil.which("g++") is None:
    pytest.skip("g++ is not here to say where its sanitizers are", allow_module_level=True)


def runtime(name: str) -> str:
    found = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


# The sanitizer must be loaded before anything allocates, and libstdc++ with it, or it finds no exceptions to intercept.
# Python itself leaks by design.
SANITIZED = {
    "DEEPCLUST_EMU_DIR": str(BUILT),
    "LD_PRELOAD": f"{runtime('libasan.so')}:{runtime('libstdc++.so')}",
    "ASAN_OPTIONS": "detect_leaks=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


def emulator_tests() -> list[Path]:
    """test_emu.py and what follows its pattern, which import numpy alone: torch under a sanitizer takes minutes."""
    return sorted(path for path in Path(__file__).parent.glob("test_emu*.py") if path != Path(__file__))


# Last to first: what a thread reads of those before it, where no barrier makes them write it, is still poison.
ONE_ORDER = {"DEEPCLUST_EMU_SCHEDULE": "reverse"}


@pytest.mark.parametrize("order", [ONE_ORDER, pytest.param({}, marks=pytest.mark.exhaustive)], ids=["one", "all"])
@pytest.mark.parametrize("path", emulator_tests(), ids=lambda path: path.stem)
def test_the_emulator_tests_pass_under_the_sanitizers(path, order):
    environment = {**os.environ, **SANITIZED, **order}
    # Without pytest's capture, in which the report of a process that is stopped is lost.
    command = [sys.executable, "-m", "pytest", "-s", "--noconftest", "-p", "no:cacheprovider", str(path)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    assert ended.returncode == 0, ended.stdout[-4000:] + ended.stderr[-4000:]
    assert " passed" in ended.stdout


@pytest.mark.parametrize(
    ("kernel", "smem", "finding"),
    [
        ("wrong_shared_index", 0, "AddressSanitizer: heap-buffer-overflow"),
        ("wrong_shared_bounds", 0, "runtime error: index 16 out of bounds for type 'float [16]'"),
        ("wrong_dynamic_index", 64, "AddressSanitizer: heap-buffer-overflow"),
        ("wrong_global_index", 0, "AddressSanitizer: heap-buffer-overflow"),
    ],
)
def test_a_step_beyond_the_end_is_found(kernel, smem, finding):
    code = f"emu.selftest({kernel!r}, np.zeros(16, np.float32), 1, smem={smem})"
    said = crash(code, SANITIZED)
    assert finding in said
    assert f"deepclust::selftest::{kernel}(" in said
