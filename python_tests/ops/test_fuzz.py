"""Random calls of every op, in child processes with little memory: a crash shows, and so does a bare error of torch.

DEEPCLUST_FUZZ=N makes N times as many.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.fuzz import CALLS, call, described

import deepclust_ext

LONGER = int(os.environ.get("DEEPCLUST_FUZZ", "1"))


def test_every_public_op_is_called():
    functions = {name for name in deepclust_ext.__all__ if inspect.isfunction(getattr(deepclust_ext, name))}
    assert functions - {"build_info"} == set(CALLS)


def run(seed: int, calls: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "support.fuzz", str(seed), str(calls)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("seed", range(2 * LONGER))
def test_random_calls(seed):
    ended = run(seed, 120)
    said = ended.stdout.splitlines()
    assert said[-1:] == ["done"], f"exit {ended.returncode} at: {said[-1] if said else ''}\n{ended.stderr[-2000:]}"


def test_a_bare_error_and_a_crash_are_seen(monkeypatch):
    """The net has no holes: what an op must not do fails the call."""

    def broken(x):
        raise RuntimeError("shape '[-1, 0, 3]' is invalid")

    monkeypatch.setitem(CALLS, "mi_loss", lambda draw: ((draw.floats(2, 2),), {}))
    monkeypatch.setattr(deepclust_ext, "mi_loss", broken)
    with pytest.raises(RuntimeError, match="is invalid"):
        call("mi_loss", 0)
    monkeypatch.setattr(deepclust_ext, "mi_loss", lambda x: x.double() / 0)
    monkeypatch.setitem(CALLS, "mi_loss", lambda draw: ((draw.floats(2, 2).double(),), {}))
    with pytest.raises(AssertionError, match="not finite"):
        call("mi_loss", 0)
    assert described(3) == "3"
