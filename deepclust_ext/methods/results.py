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
from deepclust_ext.methods.saving import fitted_state, stamp
from deepclust_ext.methods.seeds import derive_generator
from deepclust_ext.runs import describe

if TYPE_CHECKING:
    from deepclust_ext.methods.base import Method
    from deepclust_ext.methods.loop import Training

# k-means on pixels is a yardstick: a sample of this size tells as much, in seconds.
BASELINE_IMAGES = 10_000

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
        If classes are known and the run's NMI is below that of k-means on pixels.
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
    metrics: dict[str, Any] = {
        "method": method._name,
        "source": data.source,
        "n_images": len(data),
        "n_skipped": len(data.skipped),
        "n_clusters": method.n_clusters,
        "epochs": method.epochs,
        "seconds": round(training.seconds, 3),
        "selected_head": selected,
        "diagnostics": evaluate.diagnostics(method.labels_, method.n_clusters, embeddings),
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
        metrics["kmeans_pixels"], metrics["below_kmeans_pixels"] = _compare_with_pixels(method, data, y)
    method.metrics_ = describe(metrics)
    if training.run is not None:
        run = training.run
        run.write_labels(data.names, method.labels_, method.confidence_)
        run.write_embeddings({"embeddings": embeddings, "labels": method.labels_, "confidence": method.confidence_})
        run.write_metrics(method.metrics_)
        run.checkpoints.save(stamp(method, {**training.state(), "fitted": fitted_state(method)}))


def _compare_with_pixels(method: Method, data: ImageData, y: Labels) -> tuple[dict[str, Any], bool]:
    """Score k-means on the pixels of (a sample of) the images, and say so when the run's NMI is below it."""
    evaluate = require("deepclust_ext.evaluate")
    rows = np.arange(len(data))
    if len(data) > BASELINE_IMAGES:
        generator = derive_generator(method.seed, "baseline")
        rows = np.sort(torch.randperm(len(data), generator=generator)[:BASELINE_IMAGES].numpy())
    begin = time.perf_counter()
    labels = evaluate.kmeans_pixels(data.images[rows], method.n_clusters, seed=method.seed)
    seconds = round(time.perf_counter() - begin, 3)
    found: dict[str, Any] = {"n_images": len(rows), "seconds": seconds, **evaluate.scores(labels, y[rows])}
    reached = evaluate.nmi(method.labels_[rows], y[rows])
    below = bool(reached < found["nmi"])
    if below:
        warnings.warn(
            f"{method._name}: NMI {reached:.3f} is below k-means on pixels ({found['nmi']:.3f}): this run "
            "learnt "
            "less than the pixels show; look at the occupancy in the log, the augmentation and 'lr'",
            DeepclustWarning,
            stacklevel=2,
        )
    return found, below
