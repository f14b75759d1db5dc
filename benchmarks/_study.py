"""What the scripts that reproduce papers share: commands that go on where they stopped, and cells of tables."""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import yaml

CIFAR = "$DEEPCLUST_DATA/cifar10_12k.npz"


def main(description: str, study: Mapping[str, str], write_page: Callable[[Path], None]) -> None:
    """Run a study, which maps folders to the `deepclust` commands that fill them, and write its page.

    Parameters
    ----------
    description : str
        What --help says.
    study : mapping of str to str
        Commands without --out; environment variables in them are filled in.
    write_page : callable
        Given the folder of all runs.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--only", default="", help="run folders that start with this")
    parser.add_argument("--table", action="store_true", help="run nothing")
    options = parser.parse_args()
    for name, command in study.items():
        if name.startswith(options.only) and not options.table:
            words = [os.path.expandvars(word) for word in shlex.split(command)]
            out = ("--out", str(options.runs / name))
            subprocess.run([sys.executable, "-m", "deepclust_ext", *words, *out], check=True)
    write_page(options.runs)


def processors(folders: Sequence[Path]) -> str:
    """Where the runs in these folders were made, as they recorded it."""
    configs = [yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")) for folder in folders]
    return " and ".join(sorted({config.get("processor", "a processor unrecorded") for config in configs}))


def cell(values: Sequence[float]) -> str:
    """Mean +- standard deviation."""
    mean = statistics.fmean(values)
    return f"{mean:.3f}" if len(values) == 1 else f"{mean:.3f} +- {statistics.stdev(values):.3f}"
