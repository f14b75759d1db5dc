"""The check's command line: `python3 -m benchmarks.gpu_check FOLDER`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.gpu_check.driver import check
from benchmarks.gpu_check.parts import PARTS

NAMES = [part.name for part in PARTS]

parser = argparse.ArgumentParser(prog="benchmarks.gpu_check", description="Check and time the CUDA kernels on a GPU.")
parser.add_argument("out", type=Path, help="folder for gpu.json, gpu.log and gpu.md")
parser.add_argument("--only", nargs="+", metavar="PART", choices=NAMES, help=f"some parts alone: {', '.join(NAMES)}")
parser.add_argument("--seconds", type=float, default=470.0, help="limit of all parts together (%(default)s)")
parser.add_argument("--rehearse", action="store_true", help="on the CPU and small, to try the check itself")
options = parser.parse_args()
chosen = [part for part in PARTS if options.only is None or part.name in options.only]
sys.exit(check(chosen, options.out, seconds=options.seconds, rehearse=options.rehearse))
