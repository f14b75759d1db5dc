"""Says how often the number of clusters is found, and writes benchmarks/results/cluster_count.md.

python benchmarks/study_cluster_count.py --runs runs/count            counts what is missing, then writes the page
python benchmarks/study_cluster_count.py --runs runs/count --only g   the data sets whose names start so
python benchmarks/study_cluster_count.py --runs runs/count --table    writes the page from what is there

A minute on one core; what is counted is kept in RUNS/count.jsonl, and the page shows what is finished.
COIL-20 is read from $DEEPCLUST_DATA/coil20.npz if it is there; digits and 5,000 digits of MNIST come with packages.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from deepclust_ext.data import load_data
from deepclust_ext.evaluate import count_clusters

PAGE = Path(__file__).with_name("results") / "cluster_count.md"

# Clusters, rows, dimensions, spread of the means in units of the clusters' own, and whether sizes are equal.
GAUSSIANS = [
    (3, 600, 8, 3.0, True),
    (5, 1000, 10, 2.0, True),
    (8, 1600, 10, 2.0, False),
    (10, 1000, 50, 1.0, True),
    (12, 2400, 16, 1.5, False),
    (20, 2000, 20, 1.5, True),
    (30, 3000, 20, 1.5, True),
]
SEEDS = (101, 102, 103)

INTRODUCTION = """# How many clusters?

Written by `python benchmarks/study_cluster_count.py --runs runs/count`. `deepclust fit METHOD --clusters auto` takes
the first of the candidates that are shown here (`evaluate.count_clusters`). "Taken" is that number, "candidates" are
the five best in their order, with the stability of each; the true number is known to the table alone. The rule was
settled on other mixtures than these and with a look at the images, which it fits less well. Gaussian mixtures: K
round clusters of unit variance in d dimensions, means drawn from a Gaussian of the given spread; sizes are equal, or
drawn from a Dirichlet distribution of concentration 3. Seconds are processor time of one thread.

| Data | rows | true | taken | candidates (stability) | seconds |
|---|---:|---:|---:|---|---:|
"""


def mixture(k: int, n: int, d: int, spread: float, equal: bool, seed: int) -> npt.NDArray[np.float32]:
    """Rows of a mixture of round Gaussians."""
    rng = np.random.default_rng(seed)
    means = spread * rng.normal(size=(k, d))
    of = np.arange(n) % k if equal else rng.choice(k, n, p=rng.dirichlet(np.full(k, 3.0)))
    rows: npt.NDArray[np.float32] = (means[of] + rng.normal(size=(n, d))).astype(np.float32)
    return rows


def data_sets() -> Iterator[tuple[str, int, Callable[[], Any]]]:
    """Name, true number and how to get the rows of each."""
    for name in ("digits", "mnist5k"):
        yield name, 10, functools.partial(pixels, name)
    coil = Path(os.environ.get("DEEPCLUST_DATA", "")) / "coil20.npz"
    yield "COIL-20", 20, functools.partial(pixels, coil)
    for k, n, d, spread, equal in GAUSSIANS:
        for seed in SEEDS:
            sizes = "equal" if equal else "unequal"
            name = f"Gaussians, K = {k}, d = {d}, spread {spread:g}, {sizes}, seed {seed}"
            yield name, k, functools.partial(mixture, k, n, d, spread, equal, seed)


def pixels(data: str | Path) -> Any:
    """Images as rows."""
    return load_data(data).images.flatten(1)


def main() -> None:
    """Count the clusters of each that is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--only", default="", help="data sets whose names start so")
    parser.add_argument("--table", action="store_true", help="count nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    file = options.runs / "count.jsonl"
    done = {}
    if file.exists():
        done = {row["name"]: row for row in map(json.loads, file.read_text(encoding="utf-8").splitlines())}
    for name, true, load in data_sets():
        if options.table or name in done or not name.lower().startswith(options.only.lower()):
            continue
        rows = load()
        start = time.process_time()
        found = count_clusters(rows)
        done[name] = {
            "name": name,
            "n": len(rows),
            "true": true,
            "taken": found.n_clusters,
            "candidates": [[each.n_clusters, round(each.stability, 2)] for each in found.candidates],
            "seconds": round(time.process_time() - start, 1),
        }
        options.runs.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as target:
            target.write(json.dumps(done[name]) + "\n")
        write_page(done)
    write_page(done)
    sys.stdout.write(f"{PAGE}\n")


def write_page(done: dict[str, dict[str, Any]]) -> None:
    """Write the page from the data sets that are finished, and name the others."""
    lines, missing = [], []
    for name, _, _ in data_sets():
        if name not in done:
            missing.append(name)
            continue
        row = done[name]
        shown = ", ".join(f"{number} ({stability:.2f})" for number, stability in row["candidates"])
        lines.append(f"| {name} | {row['n']:,} | {row['true']} | {row['taken']} | {shown} | {row['seconds']:.1f} |")
    verdicts = []
    for title, made in (("Images", False), ("Gaussian mixtures", True)):
        rows = [row for name, row in done.items() if name.startswith("Gaussians") == made]
        if not rows:
            continue
        right = sum(row["taken"] == row["true"] for row in rows)
        near = sum(abs(row["taken"] - row["true"]) <= 1 for row in rows)
        among = sum(row["true"] in [number for number, _ in row["candidates"]] for row in rows)
        verdicts.append(
            f"{title}: right {right} of {len(rows)} times, within one {near} of {len(rows)}, "
            f"among the candidates {among} of {len(rows)}."
        )
    if missing:
        verdicts.append(f"Not run yet: {len(missing)} data sets, the first {missing[0]}.")
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(INTRODUCTION + "\n".join(lines) + "\n\n" + "\n\n".join(verdicts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
