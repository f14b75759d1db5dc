"""Times `deepclust fit kmeans` and `fit affinity` on 100,000 made embeddings of 768 dimensions, up to labels.csv.

python benchmarks/large_embeddings.py --runs runs/large

A row is one of 100 centers and noise of the same spread, both with variances that fall as 1 / i along turned axes:
clusters overlap, and no dimension is free of noise. Prints the seconds that went by and those of the processors: on a
busy machine the first say nothing. OMP_NUM_THREADS is 2 unless it is set.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

CLUSTERS, DIM = 100, 768
COMMANDS = {"kmeans": "fit kmeans --clusters 100", "affinity": "fit affinity --clusters 100 --k 20"}


def make(path: Path, n: int) -> None:
    """Write the embeddings and their centers' numbers, from seed 0."""
    generator = np.random.default_rng(0)
    deviation = (1 / np.sqrt(1 + np.arange(DIM))).astype(np.float32)
    turn = np.linalg.qr(generator.standard_normal((DIM, DIM)))[0].astype(np.float32)
    y = generator.integers(0, CLUSTERS, n)
    centers = generator.standard_normal((CLUSTERS, DIM), dtype=np.float32)
    noise = generator.standard_normal((n, DIM), dtype=np.float32)
    np.savez(path, embeddings=((centers[y] + noise) * deviation) @ turn, y=y)


def main() -> None:
    """Make the data unless they are there, run both commands, print a line of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="folder for data and runs")
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    data = options.runs / f"made-{options.rows}.npz"
    if not data.exists():
        make(data, options.rows)
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    for name, words in COMMANDS.items():
        out = options.runs / name
        shutil.rmtree(out, ignore_errors=True)
        begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "deepclust_ext", *words.split(), "--data", str(data), "--out", str(out)]
        subprocess.run([*command, "--quiet"], check=True)
        wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
        sys.stdout.write(
            f"deepclust {words} on {options.rows:,} x {DIM}: {wall:.0f} s by the clock, {spent:.0f} of processors "
            f"({os.environ['OMP_NUM_THREADS']} threads), {after.ru_maxrss / 2**20:.1f} GiB; "
            f"NMI {metrics['scores']['nmi']:.3f}\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()
