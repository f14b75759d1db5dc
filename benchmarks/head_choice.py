"""How far the head that is chosen without classes is from the best one, over finished runs of DHOG and IIC.

python benchmarks/head_choice.py RUNS [RUNS ...]      writes benchmarks/results/head_choice.md

Each RUNS is a folder whose folders, at any depth, are runs of data with classes.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import yaml

PAGE = Path(__file__).with_name("results") / "head_choice.md"

INTRODUCTION = """# Choosing a head without classes

Written by `python benchmarks/head_choice.py RUNS ...` from `metrics.json` of runs of DHOG and IIC (alpha 0). The head
is chosen by the agreement of its labels of two views: by their normalised mutual information NMI(z, z'), which is the
default, or by MI(z, z') in nats. Beside each: the NMI with the classes of the head that it chooses, the mean head's,
and how far the choice is below the best head; "rank" is Spearman's correlation, over a run's heads, of the agreement
with the NMI with the classes. Means over the runs of a line.
"""


def heads_of(runs: list[Path]) -> Iterator[tuple[str, list[dict]]]:
    """What each run is of, and its heads."""
    for folder in runs:
        for file in sorted(folder.rglob("metrics.json")):
            metrics = json.loads(file.read_text(encoding="utf-8"))
            heads = metrics.get("heads") or []
            if len(heads) > 1 and metrics["method"] == "DHOG" and "scores" in heads[0]:
                config = yaml.safe_load((file.parent / "config.yaml").read_text(encoding="utf-8"))
                alpha = config["parameters"].get("alpha")
                push = "" if alpha is None else f", alpha {alpha:g}"
                yield f"{metrics['source']}: {metrics['method']}{push}, {len(heads)} heads", heads


def ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each value."""
    return np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(float)


def row(title: str, found: list[list[dict]]) -> str:
    """A line of the table."""
    figures: dict[str, list[float]] = defaultdict(list)
    for heads in found:
        truth = np.array([head["scores"]["nmi"] for head in heads])
        figures["best"].append(truth.max())
        figures["mean"].append(truth.mean())
        for key in ("nmi_views", "mi_views"):
            agreement = np.array([head[key] for head in heads])
            figures[key].append(truth[agreement.argmax()])
            figures[key + "_short"].append(truth.max() - truth[agreement.argmax()])
            if np.ptp(agreement) and np.ptp(truth):
                figures[key + "_rank"].append(np.corrcoef(ranks(agreement), ranks(truth))[0, 1])

    def cell(key: str, form: str = ".3f") -> str:
        return format(statistics.fmean(figures[key]), form) if figures[key] else "-"

    by = [f"{cell(key)} | {cell(key + '_short')} | {cell(key + '_rank', '+.2f')}" for key in ("nmi_views", "mi_views")]
    return f"| {title} | {len(found)} | {cell('best')} | {cell('mean')} | {' | '.join(by)} |"


def main(runs: list[Path]) -> None:
    """Write the page."""
    lines = defaultdict(list)
    for title, heads in heads_of(runs):
        lines[title].append(heads)
    table = [
        "| | runs | best head | mean head | by NMI(z, z') | short | rank | by MI(z, z') | short | rank |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
        *(row(title, found) for title, found in sorted(lines.items())),
    ]
    PAGE.write_text(INTRODUCTION + "\n" + "\n".join(table) + "\n", encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(str(__doc__))
    main([Path(word) for word in sys.argv[1:]])
