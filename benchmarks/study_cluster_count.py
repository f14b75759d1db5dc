"""Says how often the number of clusters is found, and writes benchmarks/results/cluster_count.md.

python benchmarks/study_cluster_count.py             a minute on one core
python benchmarks/study_cluster_count.py --only g    the data sets whose names start so; the page is not written

COIL-20 is read from $DEEPCLUST_DATA/coil20.npz if it is there; digits and 5,000 digits of MNIST come with packages.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

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

Written by `python benchmarks/study_cluster_count.py`. `deepclust fit METHOD --clusters auto` takes the first of the
candidates that are shown here (`evaluate.count_clusters`). "Taken" is that number, "candidates" are the five best in
their order, with the stability of each; the true number is known to the table alone. Gaussian mixtures: K round
clusters of unit variance in d dimensions, means drawn from a Gaussian of the given spread; sizes are equal, or drawn
from a Dirichlet distribution of concentration 3. Seconds are processor time of one thread.

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


def data_sets() -> Iterator[tuple[str, int, object]]:
    """Name, true number and rows of each."""
    for name in ("digits", "mnist5k"):
        yield name, 10, load_data(name).images.flatten(1)
    coil = Path(os.environ.get("DEEPCLUST_DATA", "")) / "coil20.npz"
    if coil.is_file():
        yield "COIL-20", 20, load_data(coil).images.flatten(1)
    for k, n, d, spread, equal in GAUSSIANS:
        for seed in SEEDS:
            sizes = "equal" if equal else "unequal"
            name = f"Gaussians, d = {d}, spread {spread:g}, {sizes}, seed {seed}"
            yield name, k, mixture(k, n, d, spread, equal, seed)


def main() -> None:
    """Count the clusters of each, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="data sets whose names start so; writes no page")
    only = parser.parse_args().only
    torch.set_num_threads(1)
    lines, outcomes = [], []
    for name, true, rows in data_sets():
        if not name.lower().startswith(only.lower()):
            continue
        start = time.process_time()
        found = count_clusters(rows)
        seconds = time.process_time() - start
        numbers = [each.n_clusters for each in found.candidates]
        shown = ", ".join(f"{each.n_clusters} ({each.stability:.2f})" for each in found.candidates)
        size = len(rows)  # type: ignore[arg-type]
        lines.append(f"| {name} | {size:,} | {true} | {found.n_clusters} | {shown} | {seconds:.1f} |")
        sys.stdout.write(lines[-1] + "\n")
        sys.stdout.flush()
        made = name.startswith("Gaussians")
        outcomes.append((made, found.n_clusters == true, abs(found.n_clusters - true) <= 1, true in numbers))
    if only:
        return
    verdicts = []
    for title, made in (("Gaussian mixtures", True), ("Images", False)):
        right, near, among = (sum(each[i] for each in outcomes if each[0] == made) for i in (1, 2, 3))
        total = sum(each[0] == made for each in outcomes)
        verdicts.append(
            f"{title}: right {right} of {total} times, within one {near} of {total}, "
            f"among the candidates {among} of {total}."
        )
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(INTRODUCTION + "\n".join(lines) + "\n\n" + "\n\n".join(verdicts) + "\n", encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")


if __name__ == "__main__":
    main()
