"""`deepclust fit --seeds`: a run folder a seed, the mean and standard deviation over them, and how far they agree."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deepclust_ext.commands._finished import Labels, pairwise, read_labels
from deepclust_ext.commands._options import FitRequest
from deepclust_ext.commands._show import DIAGNOSTICS, SCORES, figure, seconds, table
from deepclust_ext.data import Items
from deepclust_ext.runs import RunError, atomic_writer, write_csv
from deepclust_ext.runs.directory import holds_started_run
from deepclust_ext.runs.marker import make_folder

Fit = Callable[[FitRequest, Items, Path, "int | None"], dict[str, Any]]
Row = dict[str, Any]

TITLES = {key: title for title, key in (*SCORES, *DIAGNOSTICS)}
# Seeds whose labels are compared in pairs: with all of very many, the pairs would take longer than the runs.
COMPARED = 50
# Seeds whose labels agree less than this, on average, tell of luck.
DISAGREE = 0.6

Pairs = dict[tuple[int, int], float]


def fit_seeds(request: FitRequest, images: Items, fit: Fit) -> None:
    """Fit every seed in OUT/seed-S, and after each write OUT/summary.json and OUT/summary.csv.

    The summary is of the seeds that have finished: one that is interrupted raises before it can enter.

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
    labels: dict[int, Labels] = {}
    pairs: Pairs = {}
    summary: dict[str, Any] = {}
    for seed in seeds:
        metrics = fit(request, images, out / f"seed-{seed}", seed)
        rows.append(summary_row(seed, metrics))
        if len(labels) < COMPARED:
            labels[seed] = read_labels(out / f"seed-{seed}")
            pairs = pairwise(labels, pairs)
        summary = summarise(rows, pairs)
        missing = [each for each in seeds if each not in {row["seed"] for row in rows}]
        _write(out, {"method": request.name, "missing": missing, **summary})
        if not request.quiet:
            print(
                f"seed {seed}: " + ", ".join(f"{TITLES[key]} {figure(rows[-1][key])}" for key in _shown(rows)),
                flush=True,
            )
    if not request.quiet:
        print(seeds_table(request.name, rows, summary, "pixels" if images.kind == "images" else images.kind))
        if pairs:
            print(agreement_line(summary["agreement"]))
        print(f"labels: {out / 'seed-*' / 'labels.csv'}; summary: {out / 'summary.csv'}")


def _write(out: Path, summary: dict[str, Any]) -> None:
    """Write summary.json and summary.csv."""
    with atomic_writer(out / "summary.json") as file:
        file.write((json.dumps(summary, indent=2) + "\n").encode())
    rows = summary["seeds"]
    header = list(rows[0])
    blocks = [*rows, {"seed": "mean", **summary["mean"]}, {"seed": "std", **summary["std"]}]
    write_csv(out / "summary.csv", header, [[_cell(row.get(key)) for key in header] for row in blocks])


def summary_row(seed: int, metrics: dict[str, Any]) -> Row:
    """One line of the summary: scores where there are any, label-free figures, seconds."""
    row: Row = {"seed": seed, **metrics.get("scores", {}), **metrics["diagnostics"], "seconds": metrics["seconds"]}
    row |= {f"kmeans_pixels_{key}": metrics["kmeans_pixels"][key] for _, key in SCORES if "kmeans_pixels" in metrics}
    return row


def summarise(rows: list[Row], pairs: Pairs | None = None) -> dict[str, Any]:
    """Rows with their mean and sample standard deviation (over n - 1; none for a single seed), and their agreement.

    Parameters
    ----------
    rows : list of dict
        Of `summary_row`; a figure that a run lacks is left out of its mean.
    pairs : dict, optional
        NMI of the labels of two seeds; each row gets `agreement`, its mean NMI with the others.

    Examples
    --------
    >>> summarise([{"seed": 0, "nmi": 0.5}, {"seed": 1, "nmi": 0.75}])["mean"]
    {'nmi': 0.625}
    """
    pairs = pairs or {}
    for row in rows if pairs else ():
        own = [value for pair, value in pairs.items() if row["seed"] in pair]
        row["agreement"] = statistics.fmean(own) if own else None
    mean: Row = {}
    std: Row = {}
    for key in rows[0]:
        values = [row[key] for row in rows if row.get(key) is not None]
        if key != "seed" and values:
            mean[key] = statistics.fmean(values)
            std[key] = statistics.stdev(values) if len(values) > 1 else None
    return {"seeds": rows, "mean": mean, "std": std, "agreement": _agreement(pairs)}


def _agreement(pairs: Pairs) -> dict[str, Any] | None:
    """Mean, lowest and all of the pairs' NMI."""
    if not pairs:
        return None
    listed = [{"seeds": list(pair), "nmi": value} for pair, value in pairs.items()]
    return {
        "mean": statistics.fmean(pairs.values()),
        "lowest": min(listed, key=lambda each: float(each["nmi"])),  # type: ignore[arg-type]
        "pairs": listed,
    }


def agreement_line(found: dict[str, Any]) -> str:
    """Say how far the seeds agree.

    Examples
    --------
    >>> agreement_line({"mean": 0.9, "lowest": {"seeds": [0, 2], "nmi": 0.85}, "pairs": [1, 2, 3]})
    'seeds agree: NMI of their labels 0.9000 on average over 3 pairs, 0.8500 at least (seeds 0 and 2)'
    """
    first, second = found["lowest"]["seeds"]
    verdict = "seeds agree" if found["mean"] >= DISAGREE else "seeds disagree"
    return (
        f"{verdict}: NMI of their labels {figure(found['mean'])} on average over {len(found['pairs'])} "
        f"pair{'s' if len(found['pairs']) > 1 else ''}, {figure(found['lowest']['nmi'])} at least "
        f"(seeds {first} and {second})"
    )


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
