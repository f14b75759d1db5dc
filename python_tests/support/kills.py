"""Ways for a run to die, or to be stopped, in the middle: for the tests of what a resume comes to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from deepclust_ext.training import loop


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


def kill() -> None:
    raise Killed


def terminate() -> None:
    """The signal that asks a run to save its state and end."""
    os.kill(os.getpid(), signal.SIGTERM)


def do_at(monkeypatch: Any, owner: Any, name: str, call: int, action: Callable[[], None]) -> None:
    """Act as the `call`-th call of a function begins, counted from 1."""
    original, calls = getattr(owner, name), []

    def acting(*arguments: Any, **options: Any) -> Any:
        calls.append(None)
        if len(calls) == call:
            action()
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, acting)


def stop_at(monkeypatch: Any, epoch: int, step: int, action: Callable[[], None]) -> None:
    """Act when the loop comes to a step."""
    original = loop.train_step

    def step_or_stop(learner: Any, index: Any, place: Any, **options: Any) -> Any:
        if (place.epoch, place.step) == (epoch, step):
            action()
        return original(learner, index, place, **options)

    monkeypatch.setattr(loop, "train_step", step_or_stop)


def run_until_killed(folder: Path, images: Any, script: str) -> None:
    """Run a script, which sends itself SIGKILL, in a process of its own; `images` and `run` are names that it knows."""
    np.save(folder / "images.npy", np.asarray(images))
    begin = (
        "import os, signal, sys, numpy, torch; torch.set_num_threads(1)\n"
        "images, run = numpy.load(sys.argv[1]), sys.argv[2]\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", begin + script, str(folder / "images.npy"), str(folder / "run")]
    assert subprocess.run(command, timeout=300, check=False).returncode == -signal.SIGKILL
