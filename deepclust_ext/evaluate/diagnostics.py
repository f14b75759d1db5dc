"""What can be said of a clustering without any class labels."""

from __future__ import annotations

import math
from typing import Any, TypedDict

import numpy as np

from deepclust_ext import _checks as check
from deepclust_ext._optional import require
from deepclust_ext.evaluate._checks import Array, Labels, as_array, as_features, as_label_pair, as_labels
from deepclust_ext.evaluate.scores import acc_hungarian

SILHOUETTE_SAMPLE = 2000
SILHOUETTE_SEED = 0


class Diagnostics(TypedDict):
    """Label-free figures; `silhouette` is None without embeddings, or where it is not defined.

    `silhouette_images` says over how many images it is the mean.
    """

    n_clusters_used: int
    largest_share: float
    smallest_share: float
    occupancy_entropy: float
    silhouette: float | None
    silhouette_images: int | None


def occupancy(labels: object, n_clusters: int) -> Labels:
    """Count the images in every cluster.

    Parameters
    ----------
    labels : array or tensor, (N,) integer
        Clusters, 0 to n_clusters - 1.
    n_clusters : int
        Number of clusters asked for.

    Returns
    -------
    ndarray, (n_clusters,) int64

    Raises
    ------
    ValueError
        If a label is not below `n_clusters`, is negative, or there are none.

    Examples
    --------
    >>> occupancy([0, 0, 2], 4)
    array([2, 0, 1, 0])
    """
    clusters = as_labels("occupancy", "labels", labels)
    n_clusters = check.whole_number("occupancy", "n_clusters", n_clusters)
    if n_clusters <= clusters.max():
        raise ValueError(
            f"occupancy: 'n_clusters' must exceed every label, got {n_clusters} with a label {clusters.max()}"
        )
    return np.bincount(clusters, minlength=n_clusters).astype(np.int64)


def diagnostics(
    labels: object, n_clusters: int, embeddings: object | None = None, *, sample: int = SILHOUETTE_SAMPLE
) -> Diagnostics:
    r"""Describe a clustering without labels: how full its clusters are, and how well apart.

    .. math:: \text{occupancy entropy} = -\sum_k p_k \ln p_k \,/\, \ln K

    with :math:`p_k` the share of images in cluster k: 1 for equal clusters, 0 for a collapsed clustering.

    Parameters
    ----------
    labels : array or tensor, (N,) integer
        Clusters, 0 to n_clusters - 1.
    n_clusters : int
        K, the number of clusters asked for.
    embeddings : array or tensor, (N, d) float, optional
        Features in which the silhouette is measured, Euclidean.
    sample : int
        The most images whose silhouettes are taken: their time grows with the square of the number.

    Returns
    -------
    dict
        n_clusters_used, largest_share, smallest_share (0 if a cluster is empty), occupancy_entropy (0 for
        K = 1), and silhouette: mean over all images, or over `sample` drawn with a fixed seed if there are more, with
        their number silhouette_images; both None without embeddings, or if the sample holds fewer than two clusters
        or only singletons.

    Raises
    ------
    ValueError
        If a label is out of range, `embeddings` is not finite (where it is looked at) or of another length, or `sample`
        is below 2.

    Examples
    --------
    >>> diagnostics([0, 0, 1, 1], 4)["occupancy_entropy"]
    0.5
    """
    counts = occupancy(labels, n_clusters)
    shares = counts / counts.sum()
    used = shares[shares > 0]
    entropy = float(-(used * np.log(used)).sum()) / math.log(n_clusters) if len(used) > 1 else 0.0
    sample = check.whole_number("diagnostics", "sample", sample, at_least=2)
    silhouette = None
    if embeddings is not None:
        clusters = as_labels("diagnostics", "labels", labels)
        rows: Any = embeddings if hasattr(embeddings, "shape") else as_array(embeddings)
        if len(rows) != len(clusters):
            raise ValueError(f"diagnostics: 'embeddings' must have a row per label ({len(clusters)}), got {len(rows)}")
        if len(clusters) > sample:
            # Before anything is made of the rows: all of them may be more than memory holds.
            drawn = np.random.default_rng(SILHOUETTE_SEED).choice(len(clusters), size=sample, replace=False)
            rows, clusters = rows[drawn], clusters[drawn]
        silhouette = _silhouette(as_features("diagnostics", "embeddings", rows), clusters)
    return Diagnostics(
        n_clusters_used=len(used),
        largest_share=float(shares.max()),
        smallest_share=float(shares.min()),
        occupancy_entropy=entropy,
        silhouette=silhouette,
        silhouette_images=None if silhouette is None else min(int(counts.sum()), sample),
    )


def churn(previous: object, labels: object) -> float:
    """Return the share of images that changed cluster between two labellings, names apart.

    Clusters are renumbered from one clustering to the next, so they are matched one to one first; images in
    clusters left without a match count as changed.

    Parameters
    ----------
    previous, labels : array or tensor, (N,) integer
        Two clusterings of the same images.

    Returns
    -------
    float
        0 if the labellings differ by names alone.

    Examples
    --------
    >>> churn([0, 0, 1, 1], [1, 1, 0, 1])
    0.25
    """
    before, after = as_label_pair("churn", previous, labels, ("previous", "labels"))
    return 1.0 - acc_hungarian(before, after)


def _silhouette(features: Array, clusters: Labels) -> float | None:
    """Mean silhouette; None if there are fewer than two clusters or only singletons."""
    if not 1 < len(np.unique(clusters)) < len(clusters):
        return None
    return float(require("sklearn.metrics").silhouette_score(features, clusters))
