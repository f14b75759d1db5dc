"""Counts what ranks send, times two of them beside one, and writes benchmarks/results/scale.md.

python -m benchmarks.scale

Two processes of one thread each, so two quiet cores are needed; the whole takes about five minutes.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.scale import forecast, jobs, traffic
from benchmarks.scale.ranks import on_ranks
from deepclust_ext import build_info

PAGE = Path(__file__).parents[1] / "results" / "scale.md"

INTRODUCTION = """# More than one process: bytes and time

Written by `python -m benchmarks.scale` on {machine}, torch {torch}, gloo, one thread for each rank.
What is sent is counted in the calls of `torch.distributed`, as bytes that rank 0 receives from others.

## Ops

The same whole, cut by rank: `kmeans` of {points:,} x {dim}, K = {clusters}, 10 iterations; `knn` of {graph:,} x {dim},
k = {neighbors}; `bank_nll_entropy` of {batch} samples and {bank:,} rows of {dim}, with the gradient; `mi_loss` of
{samples:,} samples and {classes} classes, with the gradient. Efficiency: time of one rank / (2 x time of two). One
process multiplies each pair of a graph once, and two ranks those between them on both sides: two thirds are the most.

| Op | one rank | two ranks | efficiency | calls | bytes |
|---|---:|---:|---:|---:|---:|
"""

METHODS = """
## Steps of methods

A step of {batch} digits (28 x 28) with the configuration `small` (JULE: its defaults). Networks of such images are
small: where a step is little work beside what it sends, one process is faster.

| Method | one rank | two ranks | calls | bytes | of them gradients, at most |
|---|---:|---:|---:|---:|---:|
"""

FORECAST = """
## Many ranks, by a model

Work is shared evenly at the rate that each of the two ranks, of one core, has above; bytes are those of
[the model](../scale/traffic.py), which a test holds to the counts on two and three ranks, and arrive at the speed of
the link: {links}. A
collective is log2 R messages. Dimension {dim}, float32. Nothing of this was run.

| | rows | {columns} |
|---|---:|{lines}|
"""

READING = """
The work of exact neighbours grows with the square of the rows. Where that is out of reach, an approximate index is the
tool ([where to leave us](../../docs/scale.md)).
"""


def duration(seconds: float) -> str:
    """In the unit that a reader would take."""
    for limit, unit, factor in ((1, "ms", 1e3), (600, "s", 1), (36e3, "min", 1 / 60), (100 * 3600, "h", 1 / 3600)):
        if seconds < limit:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds / 86400:,.0f} days"


def size(received: float) -> str:
    """Bytes, in thousands or millions of them where there are so many."""
    return f"{received / 1e6:.2f} MB" if received >= 1e5 else f"{received:,.0f}"


def op_rows(one: dict[str, Any], two: dict[str, Any]) -> str:
    """Lines of the table of ops."""
    lines = [
        f"| `{name}` | {duration(alone[0])} | {duration(two[name][0])} | {alone[0] / two[name][0] / 2:.0%} | "
        f"{two[name][1]} | {size(two[name][2])} |"
        for name, alone in one.items()
    ]
    return "\n".join(lines) + "\n"


def method_rows(one: dict[str, Any], two: dict[str, Any]) -> str:
    """Lines of the table of methods."""
    lines = [
        f"| {name} | {duration(alone[0])} | {duration(two[name][0])} | {two[name][1]} | {size(two[name][2])} | "
        f"{size(traffic.sum_ordered(2, alone[3] // 4 + 1).received)} |"
        for name, alone in one.items()
    ]
    return "\n".join(lines) + "\n"


def forecast_rows(two: dict[str, Any]) -> str:
    """Lines of the table of many ranks."""
    j = jobs
    work = {
        "kmeans": 11 * j.POINTS * j.DIM * j.CLUSTERS,  # the labels at the end are one more
        "knn": j.GRAPH**2 * j.DIM * 3 / 4,  # of its own rows each pair once
        "bank_nll_entropy": j.BATCH * j.BANK * j.DIM,
    }
    found = forecast.cases({name: work[name] / 2 / two[name][0] for name in work})
    lines = []
    for title, rows, times in found:
        cells = " | ".join(duration(seconds) for seconds in times)
        lines.append(f"| {title} | 10^{len(str(rows)) - 1} | {cells} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run all and write the page."""
    one, two = on_ranks(1, jobs.ops)[0], on_ranks(2, jobs.ops)[0]
    step, steps = on_ranks(1, jobs.steps)[0], on_ranks(2, jobs.steps)[0]
    f = forecast
    links = "; ".join(
        f"{x.name}, {x.bytes_per_second / 1e9:g} GB/s and {x.latency * 1e6:g} us a message" for x in f.LINKS
    )
    columns = " | ".join(f"{link.name}, {ranks}" for link in f.LINKS for ranks in f.RANKS)
    machine = f"{platform.machine()} ({build_info()['simd']})"
    j = jobs
    text = INTRODUCTION.format(
        machine=machine, torch=torch.__version__, points=j.POINTS, dim=j.DIM, clusters=j.CLUSTERS, graph=j.GRAPH,
        neighbors=j.NEIGHBORS, batch=j.BATCH, bank=j.BANK, samples=j.SAMPLES, classes=j.CLASSES,
    )  # fmt: skip
    text += op_rows(one, two) + METHODS.format(batch=j.STEP) + method_rows(step, steps)
    text += FORECAST.format(links=links, dim=f.DIM, columns=columns, lines="---:|" * 5 + "---:")
    PAGE.write_text(text + forecast_rows(two) + READING, encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")


if __name__ == "__main__":
    main()
