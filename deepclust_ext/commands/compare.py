"""`deepclust compare RUN...`: finished runs, and the seeds of sweeps, side by side in one table and one page."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from deepclust_ext.commands._compare_page import page
from deepclust_ext.commands._finished import Finished, Group, agreement, differences, read_group
from deepclust_ext.commands._parser import Parser, UsageError
from deepclust_ext.commands._show import figure, note, table
from deepclust_ext.runs import csv_bytes
from deepclust_ext.runs.atomic import atomic_writer
from deepclust_ext.runs.marker import make_folder

Metrics = dict[str, Any]


def _score(key: str) -> Callable[[Metrics], Any]:
    """A score against classes, as the run or a later `evaluate` has it."""
    return lambda m: (m.get("scores") or m.get("evaluation", {}).get("train") or {}).get(key)


def _described(key: str) -> Callable[[Metrics], Any]:
    """A label-free figure; that of `evaluate` first, which looks at more images."""
    return lambda m: (m.get("evaluation", {}).get("diagnostics") or m["diagnostics"]).get(key)


def _probe(key: str) -> Callable[[Metrics], Any]:
    """A probe of `evaluate`."""
    return lambda m: m.get("evaluation", {}).get("probes", {}).get(key)


# Key, title, and where a run's metrics have the figure. The first four are for the terminal too.
FIGURES: tuple[tuple[str, str, Callable[[Metrics], Any]], ...] = (
    ("acc_hungarian", "ACC", _score("acc_hungarian")),
    ("nmi", "NMI", _score("nmi")),
    ("ari", "ARI", _score("ari")),
    ("silhouette", "silhouette", _described("silhouette")),
    ("acc_majority", "majority ACC", _score("acc_majority")),
    ("nmi_geometric", "NMI, geometric", _score("nmi_geometric")),
    ("occupancy_entropy", "occupancy entropy", _described("occupancy_entropy")),
    ("n_clusters_used", "clusters used", _described("n_clusters_used")),
    ("largest_share", "largest share", _described("largest_share")),
    ("nmi_views", "NMI(z, z')", lambda m: m["heads"][m["selected_head"]].get("nmi_views")),
    ("knn", "k-NN", _probe("knn")),
    ("linear", "linear probe", _probe("linear")),
    ("seconds", "seconds", lambda m: m.get("seconds")),
)
SHORT = ("acc_hungarian", "nmi", "ari", "silhouette")
# Of k-means on the same images; of a collapse there is nothing to tell.
BASELINE = ("acc_hungarian", "acc_majority", "nmi", "nmi_geometric", "ari")


def run(words: list[str]) -> int:
    """Run `deepclust compare` on the words after it."""
    parser = Parser(
        prog="deepclust compare",
        description="Show finished runs side by side; of a folder of --seeds, mean and standard deviation of the "
        "seeds that have finished.",
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folder of a finished run, or of several seeds")
    parser.add_argument("--out", help="folder for compare.html, compare.csv and compare.json")
    parser.add_argument("--quiet", action="store_true", help="print nothing")
    found = parser.parse_args(words)
    if len({os.path.realpath(each) for each in found.runs}) < len(found.runs):
        raise UsageError("compare: RUN must name every folder once")
    if found.out is not None and Path(found.out).exists() and not Path(found.out).is_dir():
        raise UsageError(f"--out must be a folder, got the file {found.out!r}")
    comparison = compare([read_group(each) for each in found.runs])
    if found.out is not None:
        write(comparison, Path(found.out))
    for remark in comparison["remarks"]:
        note(remark)
    if not found.quiet:
        print(show(comparison))
        if found.out is not None:
            print(f"page: {Path(found.out) / 'compare.html'}")
    return 0


def compare(groups: Sequence[Group]) -> dict[str, Any]:
    """Compare groups of runs.

    Parameters
    ----------
    groups : sequence of Group
        A row each.

    Returns
    -------
    comparison : dict
        Plain values: `rows` (name, method, seeds, and `figures`, each with mean, std and values), `baselines` (k-means
        on the same images), `settings` (those that differ, by row), `agreement` (mean NMI of the labels of two rows,
        where both are of the same images; that of a row with itself is between its seeds), and `remarks`.
    """
    rows = [
        {
            "name": name,
            "method": group.runs[0].metrics["method"],
            "data": group.runs[0].metrics["source"],
            "n_images": group.runs[0].metrics["n_images"],
            "seeds": [each.seed for each in group.runs],
            "unfinished": list(group.unfinished),
            "figures": {key: _spread([get(r.metrics) for r in group.runs]) for key, _, get in FIGURES},
        }
        for name, group in zip(_names([group.name for group in groups]), groups, strict=True)
    ]
    settings = [group.runs[0].settings for group in groups]
    changed = differences(settings) if len(groups) > 1 else []
    return {
        "rows": rows,
        "baselines": _baselines(groups),
        "settings": {key: [each.get(key) for each in settings] for key in changed},
        "agreement": _agreements(groups),
        "remarks": _remarks(groups, rows),
    }


def show(comparison: dict[str, Any]) -> str:
    """The tables in the terminal."""
    columns = [key for key in SHORT if any(row["figures"][key] for row in comparison["rows"])]
    titles = {key: title for key, title, _ in FIGURES}
    header = ("run", "method", "runs", *(titles[key] for key in columns), "seconds")
    body = [
        (
            row["name"],
            row["method"],
            str(len(row["seeds"])),
            *(cell(row["figures"][key]) for key in columns),
            cell(row["figures"]["seconds"], digits=1),
        )
        for row in comparison["rows"]
    ]
    for row in comparison["baselines"]:
        figures = [cell(row["figures"].get(key)) for key in columns]
        body.append((f"k-means on {row['input']}", "-", str(row["runs"]), *figures, "-"))
    blocks = [table(header, body)]
    names = [str(number) for number in range(1, len(comparison["rows"]) + 1)]
    matrix = comparison["agreement"]
    if len(names) > 1 and any(value is not None for i, line in enumerate(matrix) for value in line[:i]):
        lines = [
            (f"{number} {row['name']}", *map(figure, line))
            for number, row, line in zip(names, comparison["rows"], matrix, strict=True)
        ]
        blocks.append(table(("NMI between the labels", *names), lines))
    return "\n\n".join(blocks)


def cell(spread: dict[str, Any] | None, *, digits: int = 4) -> str:
    """Mean +- standard deviation; a dash where there is none.

    Examples
    --------
    >>> cell({"mean": 0.5, "std": 0.25}, digits=2)
    '0.50 +- 0.25'
    """
    if spread is None:
        return "-"
    deviation = "" if spread["std"] is None else f" +- {spread['std']:.{digits}f}"
    return f"{spread['mean']:.{digits}f}{deviation}"


def write(comparison: dict[str, Any], out: Path) -> None:
    """Write compare.json, compare.csv and compare.html."""
    make_folder(out)
    header = ["run", "method", "data", "runs"]
    header += [f"{key}{end}" for key, _, _ in FIGURES for end in ("", "_std")]
    lines = []
    for row in comparison["rows"]:
        figures = [row["figures"][key] or {"mean": None, "std": None} for key, _, _ in FIGURES]
        numbers = [value for each in figures for value in (each["mean"], each["std"])]
        lines.append([row["name"], row["method"], row["data"], len(row["seeds"]), *map(_number, numbers)])
    titles = [(key, title) for key, title, _ in FIGURES]
    contents = {
        "compare.json": (json.dumps(comparison, indent=2, allow_nan=False) + "\n").encode(),
        "compare.csv": csv_bytes(header, lines),
        "compare.html": page(comparison, titles).encode("utf-8", errors="backslashreplace"),
    }
    for name, content in contents.items():
        with atomic_writer(out / name) as file:
            file.write(content)


def _number(value: Any) -> str:
    """A figure for the CSV file."""
    return "" if value is None else f"{value:.6f}"


def _spread(values: Sequence[Any]) -> dict[str, Any] | None:
    """Mean and sample standard deviation of what is there; None where nothing is."""
    there = [float(value) for value in values if value is not None]
    if not there:
        return None
    return {
        "mean": statistics.fmean(there),
        "std": statistics.stdev(there) if len(there) > 1 else None,
        "values": there,
    }


def _names(paths: Sequence[str]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    parts = [Path(os.path.abspath(path)).parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        ends = [str(Path(*each[-length:])) for each in parts]
        if len(set(ends)) == len(ends):
            return ends
    return list(paths)


def _baselines(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """K-means on the same images, once for each set of data and number of clusters: the mean over the runs there."""
    found: dict[tuple[str, int], list[Metrics]] = {}
    for each in (run for group in groups for run in group.runs if "kmeans_pixels" in run.metrics):
        found.setdefault((each.digest, each.metrics["n_clusters"]), []).append(each.metrics)
    return [
        {
            "input": metrics[0]["kmeans_pixels"].get("input", "pixels"),
            "data": metrics[0]["source"],
            "n_clusters": metrics[0]["n_clusters"],
            "runs": len(metrics),
            "figures": {key: _spread([m["kmeans_pixels"][key] for m in metrics]) for key in BASELINE},
        }
        for metrics in found.values()
    ]


def _agreements(groups: Sequence[Group]) -> list[list[float | None]]:
    """Mean NMI between the labels of the runs of two groups, and on the diagonal between those of one."""
    labels = {run.path: run.labels() for group in groups for run in group.runs}

    def mean(first: Group, second: Group) -> float | None:
        pairs: list[tuple[Finished, Finished]] = [
            (a, b)
            for i, a in enumerate(first.runs)
            for j, b in enumerate(second.runs)
            if a.digest == b.digest and (first is not second or i < j)
        ]
        return statistics.fmean(agreement(labels[a.path], labels[b.path]) for a, b in pairs) if pairs else None

    upper = {(i, j): mean(groups[i], groups[j]) for i in range(len(groups)) for j in range(i, len(groups))}
    return [[upper[min(i, j), max(i, j)] for j in range(len(groups))] for i in range(len(groups))]


def _remarks(groups: Sequence[Group], rows: Sequence[dict[str, Any]]) -> list[str]:
    """What must be known before the figures are believed."""
    found = []
    if len({run.digest for group in groups for run in group.runs}) > 1:
        found.append("these runs are of different data: their figures do not compare")
    for group, row in zip(groups, rows, strict=True):
        if group.unfinished:
            found.append(f"{row['name']}: {', '.join(group.unfinished)} not finished, and in no figure")
        for run in group.runs:
            seed = f", seed {run.seed}" if len(group.runs) > 1 else ""
            if run.metrics.get("collapsed"):
                found.append(f"{row['name']}{seed}: the labels have collapsed ({run.metrics['collapsed']})")
            if run.metrics.get("below_kmeans_pixels"):
                found.append(f"{row['name']}{seed}: NMI is below that of k-means on the same images")
    return found
