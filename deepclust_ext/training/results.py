"""The end of a run: choose the head, label the images, score them if classes are known, write the files."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from deepclust_ext import evaluate
from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.data.augment import Augmentation
from deepclust_ext.data.items import Items
from deepclust_ext.runs import RunDirectory, describe
from deepclust_ext.training.inference import agreement_of_views, label_heads, probability_of
from deepclust_ext.training.learner import Conclusion, Record, State
from deepclust_ext.training.placement import Centers, Placement, find_centers, in_space
from deepclust_ext.training.regrouping import Limits, Regrouping, regroup
from deepclust_ext.training.seeds import derive_generator
from deepclust_ext.training.team import current
from deepclust_ext.training.warm_start import Earlier
from deepclust_ext.training.watch import collapse_reason

# k-means on pixels is a yardstick: a sample keeps it to seconds, and the run is scored on the same images.
BASELINE_IMAGES = 10_000
BASELINE_STARTS = 10
# Starts times clusters: a start costs more with more clusters, and the yardstick must not hold up a run.
BASELINE_CLUSTERS = 1_000

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass
class Results:
    """What a finished run has found: a method's fitted attributes, without their underscore.

    Runs of earlier versions lack the last four.
    """

    labels: Labels
    confidence: npt.NDArray[np.float32]
    n_clusters: int
    selected_head: int
    mi_views: npt.NDArray[np.float64]
    nmi_views: npt.NDArray[np.float64]
    best_head: int | None
    mapping: Labels | None
    majority_mapping: Labels | None
    history: list[Record]
    metrics: dict[str, Any]
    clusters: Labels | None = None
    cluster_centers: npt.NDArray[np.float32] | None = None
    by_margin: bool = False
    regrouping: dict[str, torch.Tensor] | None = None

    def centers(self) -> Centers | None:
        """The final clusters, if the run is of this version."""
        if self.cluster_centers is None:
            return None
        regrouping = None if self.regrouping is None else Regrouping(**self.regrouping)
        return Centers(torch.from_numpy(self.cluster_centers), self.by_margin, regrouping)

    def state(self) -> State:
        """Tensors and plain values, for a file."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        plain = {
            name: torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else describe(value)
            for name, value in values.items()
        }
        return {**plain, "regrouping": self.regrouping}

    @classmethod
    def of_state(cls, state: State) -> Results:
        """What `state` was made from."""
        values: dict[str, Any] = {n: v.numpy() if isinstance(v, torch.Tensor) else v for n, v in state.items()}
        return cls(**{"clusters": values["labels"], **values})


@dataclass(frozen=True)
class Found:
    """Results, and of the training images what files of models do not hold: embeddings (N, d) float32, and places.

    There are no embeddings where they are more than memory may hold.
    """

    results: Results
    embeddings: npt.NDArray[np.float32] | None
    placement: Placement


def make_results(
    conclusion: Conclusion,
    data: Items,
    augmentation: Augmentation,
    *,
    facts: dict[str, Any],
    n_clusters: int,
    seed: int,
    history: list[Record],
    selection: str | None = "nmi",
    baseline: bool = True,
    limits: Limits | None = None,
    earlier: Earlier | None = None,
    rows: Any = None,
) -> Found:
    """Label the training images with what a run has come to, and describe the labels.

    The head is chosen without labels, by how its labels of two augmented views agree; ties to the lowest.

    Parameters
    ----------
    conclusion : Conclusion
        Of the learner.
    data : Items
        The training images.
    augmentation : Augmentation
        Its two views.
    facts : dict
        What the metrics begin with.
    n_clusters : int
        K that was asked for.
    seed : int
        Of the run.
    history : list of dict
        The log's record of every epoch.
    selection : {"nmi", "mi"} or None
        How the head is chosen; None for the one head of a method that has no views.
    baseline : bool
        Score k-means on the images beside it.
    limits : Limits, optional
        What is asked of the final clusters. Diagnostics and scores count unsure images as well.
    earlier : Earlier, optional
        Clusters whose numbers are to be kept.
    rows : RowBlocks, optional
        The embeddings, made a block at a time: they are not kept. No cluster is split then.
    """
    net, limits = conclusion.net, limits or Limits()
    kept = label_heads(net, augmentation, data.values, embed=rows is None)
    heads, confidences, embeddings = (part.numpy() for part in kept)
    if selection is None:
        mi_views = nmi_views = np.full(len(heads), np.nan)
        selected = 0
    else:
        pair = agreement_of_views(net, augmentation, data.values, seed=seed, n_clusters=n_clusters)
        mi_views, nmi_views = (part.numpy() for part in pair)
        # argmax takes the first of equal values: the lowest head.
        selected = int((mi_views if selection == "mi" else nmi_views).argmax())
    found, posterior = torch.from_numpy(heads[selected]), torch.from_numpy(confidences[selected])
    if conclusion.labels is not None:
        _check_labels(conclusion.labels, len(data), n_clusters)
        found = conclusion.labels.cpu()
    described_rows = embeddings if rows is None else rows
    rows = in_space(net, torch.from_numpy(embeddings)) if rows is None else rows
    sizes = {"min_size": limits.min_cluster_size, "max_size": limits.max_cluster_size}
    regrouping, clusters = regroup(rows, found, n_clusters, **sizes, seed=seed)
    about: dict[str, Any] = {"sizes": regrouping.record()} if regrouping.changes else {}
    if earlier is not None:
        numbers, about["warm_start"] = earlier.numbers(clusters.numpy(), regrouping.n_numbers)
        if regrouping.changes:
            about["sizes"] = {
                key: numbers[np.array(pairs, dtype=int)].tolist() for key, pairs in about["sizes"].items()
            }
        regrouping, clusters = regrouping.renumbered(torch.from_numpy(numbers)), torch.from_numpy(numbers)[clusters]
    centers = find_centers(rows, clusters, conclusion.centroids, regrouping)
    own = conclusion.labels is not None or regrouping.changes
    if own and conclusion.centroids is None:
        merged = regrouping.into[found]
        posterior = probability_of(net, augmentation, data.values, merged, selected, regrouping.into)
    placement = centers.place(rows, clusters, posterior)
    if conclusion.confidence is not None:
        placement = placement._replace(confidence=conclusion.confidence.cpu().numpy())
    labels = placement.clusters
    described: list[dict[str, Any]] = [
        ({"head": head} if selection is None else _agreement(head, mi_views, nmi_views))
        | evaluate.diagnostics(row, n_clusters)
        for head, row in enumerate(heads)
    ]
    diagnostics = evaluate.diagnostics(labels, len(centers.points), described_rows)
    raw = np.bincount(found.numpy()) / len(data)
    metrics: dict[str, Any] = {
        **facts,
        "selected_head": selected,
        "diagnostics": diagnostics,
        "collapsed": collapse_reason(int((raw > 0).sum()), float(raw.max()), n_clusters),
        "confidence": "margin" if centers.by_margin else "posterior",
        "heads": described,
        **about,
    }
    results = Results(
        placement.labels(limits.min_confidence),
        placement.confidence,
        int(np.unique(labels).size),
        selected,
        mi_views,
        nmi_views,
        None,
        None,
        None,
        history=history,
        metrics=metrics,
        clusters=labels,
        cluster_centers=centers.points.numpy(),
        by_margin=centers.by_margin,
        regrouping=regrouping.state() if regrouping.changes else None,
    )
    sure = results.labels >= 0
    if limits.min_confidence is not None:
        metrics["unsure"] = {"below": limits.min_confidence, "n": int((~sure).sum()), "share": float((~sure).mean())}
    if data.labels is not None:
        y = data.labels.cpu().numpy()
        for described_head, row in zip(described, heads, strict=True):
            described_head["scores"] = evaluate.scores(row, y)
        results.best_head = int(np.argmax([head["scores"]["nmi"] for head in described]))
        results.mapping = evaluate.hungarian_mapping(labels, y)
        results.majority_mapping = evaluate.majority_mapping(labels, y)
        scores = evaluate.scores(labels, y) if own else described[selected]["scores"]
        metrics |= {"scores": scores, "best_head": results.best_head}
        if limits.min_confidence is not None and sure.any():
            metrics["unsure"]["scores_of_the_rest"] = evaluate.scores(labels[sure], y[sure])
        metrics["best_scores"] = described[results.best_head]["scores"]
        if baseline and current().leads:
            metrics |= compare_with_pixels(labels, n_clusters, data, y, seed=seed)
    results.metrics = describe(metrics)
    return Found(results, None if described_rows is rows else embeddings, placement)


def _agreement(head: int, mi_views: Floats, nmi_views: Floats) -> dict[str, Any]:
    """What metrics say of a head's two views."""
    return {"head": head, "mi_views": float(mi_views[head]), "nmi_views": float(nmi_views[head])}


def _check_labels(labels: torch.Tensor, n: int, n_clusters: int) -> None:
    """Refuse labels of a method's own that are none."""
    if labels.dtype != torch.int64 or labels.shape != (n,) or not 0 <= labels.min() <= labels.max() < n_clusters:
        found = f"{labels.dtype} of shape {tuple(labels.shape)} from {labels.min()} to {labels.max()}"
        raise ValueError(f"Learner.conclude: 'labels' must be int64 of shape ({n},) in [0, {n_clusters}), got {found}")


def write_results(folder: RunDirectory, names: tuple[str, ...], found: Found) -> None:
    """Write labels.csv, embeddings.npz (without embeddings where they were not kept) and metrics.json."""
    results = found.results
    folder.write_labels(names, results.labels, results.confidence, found.placement.columns())
    arrays: dict[str, npt.NDArray[Any]] = {} if found.embeddings is None else {"embeddings": found.embeddings}
    arrays |= {"labels": results.labels, "confidence": results.confidence}
    if results.clusters is not None and (results.labels < 0).any():
        arrays["clusters"] = results.clusters
    folder.write_embeddings(arrays)
    folder.write_metrics(results.metrics)


def saved_results(
    folder: RunDirectory | None, state: State | None, images: Items, limits: Limits, earlier: Earlier | None
) -> Results | None:
    """What a finished run has found, or None where there is none or its results must be made again.

    That is so if a result file is gone, if other limits or numbers are asked for, or if classes are given that the run
    was not scored against.
    """
    if folder is None or state is None or state.get("fitted") is None:
        return None
    if not folder.holds_results or limits != Limits(*(state["parameters"].get(name) for name in Limits._fields)):
        return None
    results = Results.of_state(state["fitted"])
    if results.metrics.get("warm_start", {}).get("run") != (None if earlier is None else earlier.source):
        return None
    if images.labels is not None:
        scores = evaluate.scores(results.clusters, images.labels.cpu().numpy())
        if scores != results.metrics.get("scores"):
            return None
    return results


def compare_with_pixels(labels: Labels, n_clusters: int, data: Items, y: Labels, *, seed: int) -> dict[str, Any]:
    """Score k-means on the pixels of (a sample of) the training images.

    Parameters
    ----------
    labels : ndarray of int64, shape (N,)
        The run's.
    n_clusters : int
        K.
    data : Items
        The N images, or their embeddings.
    y : ndarray of int64, shape (N,)
        Their classes.
    seed : int
        Of the run.

    Returns
    -------
    metrics : dict
        `kmeans_pixels` (of embeddings too: `input` says which), its scores with `run_nmi`, the run's NMI on the same
        images, and `below_kmeans_pixels`.
    """
    # Never fewer images than clusters: k-means would refuse them at the end of a long run.
    rows, n_sampled = np.arange(len(data)), max(BASELINE_IMAGES, n_clusters)
    if len(data) > n_sampled:
        rows = np.sort(torch.randperm(len(data), generator=derive_generator(seed, "baseline"))[:n_sampled].numpy())
    starts = max(1, min(BASELINE_STARTS, BASELINE_CLUSTERS // n_clusters))
    begin = time.perf_counter()
    pixels = evaluate.kmeans_pixels(data.values[rows], n_clusters, seed=seed, n_init=starts)
    found: dict[str, Any] = {
        "input": "pixels" if data.kind == "images" else data.kind,
        "n_images": len(rows),
        "n_init": starts,
        "seconds": round(time.perf_counter() - begin, 3),
        "run_nmi": evaluate.nmi(labels[rows], y[rows]),
        **evaluate.scores(pixels, y[rows]),
    }
    return {"kmeans_pixels": found, "below_kmeans_pixels": bool(found["run_nmi"] < found["nmi"])}


def warn_of(metrics: dict[str, Any]) -> None:
    """Warn the caller of `fit` of a collapse, or of less than k-means on pixels reaches."""
    method = metrics["method"]
    if metrics["collapsed"] is not None:
        warnings.warn(
            f"{method}: the labels have collapsed: head {metrics['selected_head']}, which they come from, "
            f"{metrics['collapsed']}",
            DeepclustWarning,
            stacklevel=3,
        )
    if metrics.get("below_kmeans_pixels"):
        pixels = metrics["kmeans_pixels"]
        warnings.warn(
            f"{method}: NMI {pixels['run_nmi']:.3f} is below k-means on {pixels['input']} ({pixels['nmi']:.3f}): this "
            f"run learnt less than the {pixels['input']} show; look at the occupancy in the log, the augmentation "
            "and 'lr'",
            DeepclustWarning,
            stacklevel=3,
        )
