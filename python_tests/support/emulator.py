"""The emulator that runs the CUDA kernels on the CPU: where its module is, and a process apart for what ends one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
EVERY_SCHEDULE = [("forward", 0), ("reverse", 0), ("random", 1), ("random", 2), ("eager", 0), ("eager-reverse", 0)]
# One of them by name, where the order of threads is not what is tried.
SCHEDULES = [each for each in EVERY_SCHEDULE if each[0] == os.environ.get("DEEPCLUST_EMU_SCHEDULE", each[0])]


def schedules(main: bool, long: bool) -> list[tuple[str, int]]:
    """Those for a sample in a dtype: all see every kernel in the `main` dtype, two in others; long samples run once."""
    return [("random", 1)] if long else EVERY_SCHEDULE if main else [("random", 2), ("eager-reverse", 0)]


def directory() -> Path:
    return Path(os.environ.get("DEEPCLUST_EMU_DIR", ROOT / "build" / "emu"))


def load() -> ModuleType:
    """The emulator; skips the test module that asks for it where it is not built."""
    if "_emu" in sys.modules:
        return sys.modules["_emu"]
    path = directory() / "_emu.so"
    if not path.exists():
        pytest.skip(f"{path} is not built: make emu", allow_module_level=True)
    spec = importlib.util.spec_from_file_location("_emu", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["_emu"] = module
    return module


def crash(code: str, env: dict[str, str] | None = None) -> str:
    """What `code`, given the emulator as `emu` and numpy as `np`, says before it kills its process."""
    head = "import sys; sys.path.insert(0, sys.argv[1]); import numpy as np; from support.emulator import load; "
    head += "emu = load(); "
    command = [sys.executable, "-c", head + code, str(Path(__file__).parents[1])]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})}, timeout=120)
    assert ended.returncode != 0, f"{code!r} went through"
    return ended.stderr
