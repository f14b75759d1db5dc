"""What the scripts that reproduce papers share: commands that go on where they stopped, and cells of tables."""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence

CIFAR = "$DEEPCLUST_DATA/cifar10_12k.npz"


def deepclust(*arguments: str) -> None:
    """Run `deepclust` with arguments, environment variables in them filled in."""
    words = [word for argument in arguments for word in shlex.split(os.path.expandvars(argument))]
    subprocess.run([sys.executable, "-m", "deepclust_ext", *words], check=True)


def cell(values: Sequence[float]) -> str:
    """Mean +- standard deviation."""
    mean = statistics.fmean(values)
    return f"{mean:.3f}" if len(values) == 1 else f"{mean:.3f} +- {statistics.stdev(values):.3f}"
