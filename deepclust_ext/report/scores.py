"""The table of scores: the run, its seeds, and k-means on the same images and on the run's embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from deepclust_ext import evaluate
from deepclust_ext.report.html import cell, escape
from deepclust_ext.report.known import Known
from deepclust_ext.report.run import SCORES, Labels, Run, Seeds
from deepclust_ext.training.results import BASELINE_IMAGES
from deepclust_ext.training.seeds import derive_generator

TITLES = {
    "acc_hungarian": (
        "ACC",
        "Accuracy: each cluster is matched to one class, and images of that class count as right.",
    ),
    "nmi": ("NMI", "Normalised mutual information: 0 says nothing of the classes, 1 says all."),
    "ari": ("ARI", "Adjusted Rand index: 0 is chance, 1 is equality."),
    "acc_majority": ("purity", "Share of images that have the most frequent class of their cluster."),
    "n_clusters_used": ("clusters used", "Clusters with at least one image."),
    "largest_share": ("largest share", "Share of the images in the largest cluster."),
    "occupancy_entropy": ("occupancy entropy", "1 where all clusters are equally large, 0 where one has everything."),
    "silhouette": ("silhouette", "From -1 to 1: how much closer images are to their own cluster than to the next."),
    "seconds": ("seconds", "Time of the computation."),
}
DIAGNOSTICS = ("n_clusters_used", "largest_share", "occupancy_entropy", "silhouette")


@dataclass(frozen=True)
class ScoreRow:
    """One line of a table of scores.

    Parameters
    ----------
    name : str
        What reached them.
    values : mapping of str to float or None
        By the keys of `TITLES`.
    spread : mapping of str to float
        Standard deviations, where the values are means.
    ours : bool
        Whether it is the run that the page is about.
    """

    name: str
    values: Mapping[str, float | None]
    spread: Mapping[str, float] = field(default_factory=dict)
    ours: bool = False


def score_rows(run: Run, known: Known, seeds: Seeds | None) -> list[ScoreRow]:
    """The run's scores, or its label-free figures, beside what they are to be compared with."""
    name = run.method + ("" if run.head is None else f", head {run.head}")
    own = run.scores or own_scores(run, known)
    figures = dict(run.metrics.get("diagnostics") or {})
    if run.head is not None:
        figures |= {key: run.metrics["heads"][run.head].get(key) for key in DIAGNOSTICS}
    rows = [ScoreRow(name, {**figures, **own, "seconds": run.metrics.get("seconds")}, ours=True)]
    if seeds is not None:
        rows.append(mean_row(f"{run.method}, mean of {len(seeds.metrics)} seeds", seeds))
    if not own:
        return rows
    pixels = run.metrics.get("kmeans_pixels") or (run.metrics.get("evaluation") or {}).get("kmeans_pixels")
    if pixels:
        rows.append(ScoreRow(f"k-means on {pixels.get('input', 'pixels')}", pixels))
    embedded = kmeans_embedding(run, known)
    if embedded is not None:
        rows.append(ScoreRow("k-means on the run's embedding", embedded))
    return rows


def mean_row(name: str, seeds: Seeds) -> ScoreRow:
    """Means over seeds, with their standard deviations."""
    found = {key: seeds.mean(key) for key in SCORES} | {key: seeds.mean(key, "diagnostics") for key in DIAGNOSTICS}
    values = {key: pair[0] for key, pair in found.items() if pair is not None}
    seconds = [float(each["seconds"]) for each in seeds.metrics.values() if each.get("seconds") is not None]
    if len(seconds) == len(seeds.metrics):
        values["seconds"] = sum(seconds) / len(seconds)
    return ScoreRow(name, values, {key: pair[1] for key, pair in found.items() if pair is not None})


def own_scores(run: Run, known: Known) -> dict[str, float]:
    """Scores of the labels where the run has none but classes are known now; images apart or without are left out."""
    if known.classes is None:
        return {}
    inside = (run.labels >= 0) & (known.classes >= 0)
    if not inside.any():
        return {}
    return dict(evaluate.scores(run.labels[inside], known.classes[inside]))


def kmeans_embedding(run: Run, known: Known) -> dict[str, Any] | None:
    """Scores of k-means on the run's embedding, of 10,000 images if there are more; None where that is the run."""
    if run.method == "KMeans" or run.embeddings is None or known.classes is None:
        return None
    evaluated = ((run.metrics.get("evaluation") or {}).get("clusterers") or {}).get("kmeans")
    if evaluated:
        return dict(evaluated)
    rows: Labels = np.flatnonzero(known.classes >= 0)
    n_clusters = min(int(run.metrics.get("n_clusters", run.n_clusters)), len(rows))
    if len(rows) > max(BASELINE_IMAGES, n_clusters):
        order = torch.randperm(len(rows), generator=derive_generator(run.seed, "baseline")).numpy()
        rows = rows[np.sort(order[: max(BASELINE_IMAGES, n_clusters)])]
    labels = evaluate.cluster_features(run.embeddings[rows], n_clusters, seed=run.seed)
    return dict(evaluate.scores(labels, known.classes[rows]))


def score_table(rows: Sequence[ScoreRow]) -> str:
    """The rows as an HTML table; the columns are those that any row has a value for."""
    scored = any(row.values.get("nmi") is not None for row in rows)
    keys = [
        key
        for key in (*(SCORES if scored else DIAGNOSTICS), "seconds")
        if any(row.values.get(key) is not None for row in rows)
    ]
    head = "".join(f'<th scope="col" title="{escape(TITLES[key][1])}">{escape(TITLES[key][0])}</th>' for key in keys)
    best = {
        key: max((row.values.get(key) for row in rows if row.values.get(key) is not None), default=None)  # type: ignore[type-var]
        for key in keys
        if key in SCORES and len(rows) > 1
    }
    body = []
    for row in rows:
        cells = "".join(
            f"<td{' class=best' if best.get(key) is not None and row.values.get(key) == best[key] else ''}>"
            f"{cell(row.values.get(key), row.spread.get(key), digits=1 if key == 'seconds' else 3)}</td>"
            for key in keys
        )
        body.append(f'<tr{" class=ours" if row.ours else ""}><th scope="row">{escape(row.name)}</th>{cells}</tr>')
    return (
        '<div class="scroll" tabindex="0"><table class="scores"><thead><tr><th scope="col">what</th>'
        f"{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def legend(rows: Sequence[ScoreRow]) -> str:
    """What the columns of the table mean, as a list."""
    scored = any(row.values.get("nmi") is not None for row in rows)
    keys = SCORES if scored else DIAGNOSTICS
    items = "".join(f"<dt>{escape(TITLES[key][0])}</dt><dd>{escape(TITLES[key][1])}</dd>" for key in keys)
    return f"<details><summary>What do these numbers mean?</summary><dl>{items}</dl></details>"
