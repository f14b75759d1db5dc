"""`deepclust fit --seeds`: a run folder a seed, and the mean and standard deviation over them."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deepclust_ext.commands._options import FitRequest
from deepclust_ext.commands._show import DIAGNOSTICS, SCORES, figure, seconds, table
from deepclust_ext.data import Items
from deepclust_ext.runs import RunError, atomic_writer, write_csv
from deepclust_ext.runs.directory import holds_started_run
from deepclust_ext.runs.marker import make_folder

Fit = Callable[[FitRequest, Items, Path, "int | None"], dict[str, Any]]
Row = dict[str, Any]

TITLES = {key: title for title, key in (*SCORES, *DIAGNOSTICS)}


def fit_seeds(request: FitRequest, images: Items, fit: Fit) -> None:
    """Fit every seed in OUT/seed-S, then write OUT/summary.json and OUT/summary.csv.

    Parameters
    ----------
    request : FitRequest
        Its `seeds` are set.
    images : Items
        What to cluster.
    fit : callable
        Fits one run and returns its metrics.

    Raises
    ------
    RunError
        If OUT holds a single run, or runs of these seeds and nothing was said about resuming.
    """
    out, seeds = Path(request.out), request.seeds or ()
    if (out / "config.yaml").exists():
        raise RunError(f"run folder: {request.out!r} holds a single run; choose another folder for several seeds")
    if request.resume is False:
        # All of them before the first is fitted: the fifth would be refused hours later.
        taken = [seed for seed in seeds if holds_started_run(out / f"seed-{seed}")]
        if taken:
            raise RunError(
                f"run folder: {request.out!r} already holds seed {taken[0]}; "
                "add --resume auto, or choose another folder"
            )
    make_folder(out)
    rows: list[Row] = []
    for seed in seeds:
        metrics = fit(request, images, out / f"seed-{seed}", seed)
        rows.append(summary_row(seed, metrics))
        if not request.quiet:
            print(
                f"seed {seed}: " + ", ".join(f"{TITLES[key]} {figure(rows[-1][key])}" for key in _shown(rows)),
                flush=True,
            )
    summary = summarise(rows)
    with atomic_writer(out / "summary.json") as file:
        file.write((json.dumps({"method": request.name, **summary}, indent=2) + "\n").encode())
    header = list(rows[0])
    blocks = [*rows, {"seed": "mean", **summary["mean"]}, {"seed": "std", **summary["std"]}]
    write_csv(out / "summary.csv", header, [[_cell(row.get(key)) for key in header] for row in blocks])
    if not request.quiet:
        print(seeds_table(request.name, rows, summary, "pixels" if images.kind == "images" else images.kind))
        print(f"labels: {out / 'seed-*' / 'labels.csv'}; summary: {out / 'summary.csv'}")


def summary_row(seed: int, metrics: dict[str, Any]) -> Row:
    """One line of the summary: scores where there are any, label-free figures, seconds."""
    row: Row = {"seed": seed, **metrics.get("scores", {}), **metrics["diagnostics"], "seconds": metrics["seconds"]}
    row |= {f"kmeans_pixels_{key}": metrics["kmeans_pixels"][key] for _, key in SCORES if "kmeans_pixels" in metrics}
    return row


def summarise(rows: list[Row]) -> dict[str, Any]:
    """Rows with their mean and sample standard deviation (over n - 1; none for a single seed).

    Examples
    --------
    >>> summarise([{"seed": 0, "nmi": 0.5}, {"seed": 1, "nmi": 0.75}])["mean"]
    {'nmi': 0.625}
    """
    mean: Row = {}
    std: Row = {}
    for key in rows[0]:
        values = [row[key] for row in rows if row.get(key) is not None]
        if key != "seed" and values:
            mean[key] = statistics.fmean(values)
            std[key] = statistics.stdev(values) if len(values) > 1 else None
    return {"seeds": rows, "mean": mean, "std": std}


def seeds_table(name: str, rows: list[Row], summary: dict[str, Any], kind: str = "pixels") -> str:
    """Mean +- standard deviation of what `fit` shows for one run."""
    shown = _shown(rows)

    def cells(prefix: str = "") -> list[str]:
        means, stds = summary["mean"], summary["std"]
        return [
            figure(means.get(prefix + key))
            + (f" +- {figure(std)}" if (std := stds.get(prefix + key)) is not None else "")
            for key in shown
        ]

    body = [(f"{name}, {len(rows)} seeds", *cells(), seconds(summary["mean"]["seconds"]))]
    if "kmeans_pixels_nmi" in rows[0]:
        body.append((f"k-means on {kind}", *cells("kmeans_pixels_"), "-"))
    return table(("method", *(TITLES[key] for key in shown), "seconds"), body)


def _shown(rows: list[Row]) -> list[str]:
    """The scores if there are labels, else the label-free figures."""
    return [key for _, key in (SCORES if "nmi" in rows[0] else DIAGNOSTICS)]


def _cell(value: Any) -> Any:
    """A figure for the CSV file."""
    return "" if value is None else f"{value:.6f}" if isinstance(value, float) else value
