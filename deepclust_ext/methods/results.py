"""The end of a run: choose the head, label the images, score them if classes are known, write the files."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from deepclust_ext._optional import require
from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.data.images import ImageData
from deepclust_ext.methods import inference
from deepclust_ext.methods.monitor import collapse_reason
from deepclust_ext.methods.saving import State, fitted_state, set_fitted, stamp
from deepclust_ext.methods.seeds import derive_generator
from deepclust_ext.runs import describe

if TYPE_CHECKING:
    from deepclust_ext.methods.base import Method
    from deepclust_ext.methods.estimator import Estimator
    from deepclust_ext.methods.loop import Training

# k-means on pixels is a yardstick: a sample keeps it to seconds, and the run is scored on the same images.
BASELINE_IMAGES = 10_000
BASELINE_STARTS = 10
# Starts times clusters: a start costs more with more clusters, and the yardstick must not hold up a run.
BASELINE_CLUSTERS = 1_000

Labels = npt.NDArray[np.int64]


def finish(method: Method, training: Training) -> None:
    """Set the fitted attributes of `method`, and write the results if there is a run folder.

    The head is chosen without labels, by how its labels of two augmented views agree; ties to the lowest.

    Parameters
    ----------
    method : Method
        Gets `labels_` and the other fitted attributes.
    training : Training
        At its last epoch.

    Warns
    -----
    DeepclustWarning
        If the labels have collapsed, or if classes are known and the run's NMI is below that of k-means on
        pixels.
    """
    net, augmentation, data = training.net, training.augmentation, training.data
    evaluate = require("deepclust_ext.evaluate")
    mi_views, nmi_views = (
        part.numpy() for part in inference.agreement_of_views(method, net, augmentation, training.images)
    )
    labels, confidence, embeddings = (
        part.numpy() for part in inference.label_heads(method, net, augmentation, training.images)
    )

    # argmax takes the first of equal values: the lowest head.
    selected = int((mi_views if method.selection == "mi" else nmi_views).argmax())
    method.selected_head_, method.mi_views_, method.nmi_views_ = selected, mi_views, nmi_views
    method.labels_, method.confidence_ = labels[selected], confidence[selected]
    method.n_clusters_ = int(np.unique(method.labels_).size)
    method.history_ = training.history
    method.best_head_ = method.mapping_ = method.majority_mapping_ = None

    heads: list[dict[str, Any]] = [
        {"head": head, "mi_views": float(mi_views[head]), "nmi_views": float(nmi_views[head])}
        | evaluate.diagnostics(row, method.n_clusters)
        for head, row in enumerate(labels)
    ]
    diagnostics = evaluate.diagnostics(method.labels_, method.n_clusters, embeddings)
    metrics: dict[str, Any] = {
        "method": method._name,
        "source": data.source,
        "n_images": len(data),
        "n_skipped": len(data.skipped),
        "n_clusters": method.n_clusters,
        "epochs": method.epochs,
        "seconds": round(training.seconds, 3),
        "selected_head": selected,
        "diagnostics": diagnostics,
        "collapsed": collapse_reason(method.n_clusters_, diagnostics["largest_share"], method.n_clusters),
        "heads": heads,
    }
    if data.labels is not None:
        y = data.labels.cpu().numpy()
        for head, row in zip(heads, labels, strict=True):
            head["scores"] = evaluate.scores(row, y)
        best = int(np.argmax([head["scores"]["nmi"] for head in heads]))
        method.best_head_ = best
        method.mapping_ = evaluate.hungarian_mapping(method.labels_, y)
        method.majority_mapping_ = evaluate.majority_mapping(method.labels_, y)
        metrics["scores"] = heads[selected]["scores"]
        metrics |= {"best_head": best, "best_scores": heads[best]["scores"]}
        metrics |= compare_with_pixels(method, data, y)
    method.metrics_ = describe(metrics)
    if training.run is not None:
        run = training.run
        run.write_labels(data.names, method.labels_, method.confidence_)
        run.write_embeddings({"embeddings": embeddings, "labels": method.labels_, "confidence": method.confidence_})
        run.write_metrics(method.metrics_)
        run.checkpoints.save(stamp(method, {**training.state(), "fitted": fitted_state(method)}))
    _warn(method)


def restore(method: Method, training: Training, fitted: State) -> bool:
    """Take over what a finished run has found, and tell whether that was possible.

    It is not if a result file is gone, or if classes are given that the run was not scored against: then
    `finish` makes the results again, with the same labels.

    Parameters
    ----------
    method : Method
        Gets the fitted attributes.
    training : Training
        With a run folder, at its last epoch.
    fitted : dict
        From `fitted_state`.

    Returns
    -------
    done : bool
    """
    if training.run is None or not training.run.holds_results:
        return False
    y = training.data.labels
    if y is not None:
        scores = require("deepclust_ext.evaluate").scores(fitted["labels_"].numpy(), y.cpu().numpy())
        if scores != fitted["metrics_"].get("scores"):
            return False
    set_fitted(method, fitted)
    training.net.eval()
    _warn(method)
    return True


def compare_with_pixels(method: Estimator, data: ImageData, y: Labels) -> dict[str, Any]:
    """Score k-means on the pixels of (a sample of) the training images.

    Parameters
    ----------
    method : Estimator
        Fitted on the images.
    data : ImageData
        The N images.
    y : ndarray of int64, shape (N,)
        Their classes.

    Returns
    -------
    metrics : dict
        `kmeans_pixels`, its scores with `run_nmi`, the run's NMI on the same images, and `below_kmeans_pixels`.
    """
    evaluate = require("deepclust_ext.evaluate")
    # Never fewer images than clusters: k-means would refuse them at the end of a long run.
    rows, n_sampled = np.arange(len(data)), max(BASELINE_IMAGES, method.n_clusters)
    if len(data) > n_sampled:
        generator = derive_generator(method.seed, "baseline")
        rows = np.sort(torch.randperm(len(data), generator=generator)[:n_sampled].numpy())
    starts = max(1, min(BASELINE_STARTS, BASELINE_CLUSTERS // method.n_clusters))
    begin = time.perf_counter()
    labels = evaluate.kmeans_pixels(data.images[rows], method.n_clusters, seed=method.seed, n_init=starts)
    found: dict[str, Any] = {
        "n_images": len(rows),
        "n_init": starts,
        "seconds": round(time.perf_counter() - begin, 3),
        "run_nmi": evaluate.nmi(method.labels_[rows], y[rows]),
        **evaluate.scores(labels, y[rows]),
    }
    return {"kmeans_pixels": found, "below_kmeans_pixels": bool(found["run_nmi"] < found["nmi"])}


def _warn(method: Method) -> None:
    """Warn the caller of `fit` of a collapse, or of less than k-means on pixels reaches."""
    metrics = method.metrics_
    if metrics["collapsed"] is not None:
        warnings.warn(
            f"{method._name}: the labels have collapsed: head {metrics['selected_head']}, which they come from, "
            f"{metrics['collapsed']}",
            DeepclustWarning,
            stacklevel=4,
        )
    if metrics.get("below_kmeans_pixels"):
        pixels = metrics["kmeans_pixels"]
        warnings.warn(
            f"{method._name}: NMI {pixels['run_nmi']:.3f} is below k-means on pixels ({pixels['nmi']:.3f}): this run "
            "learnt less than the pixels show; look at the occupancy in the log, the augmentation and 'lr'",
            DeepclustWarning,
            stacklevel=4,
        )
