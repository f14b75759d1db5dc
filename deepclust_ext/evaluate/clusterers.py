"""Other clusterers on a network's features, and the features of other data sets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from deepclust_ext import _checks as check
from deepclust_ext import affinity_graph, agglomerate, kmeans
from deepclust_ext._isolation import own_torch_state
from deepclust_ext._optional import require
from deepclust_ext.data.images import ImageData, as_float
from deepclust_ext.data.load import load_data
from deepclust_ext.evaluate._checks import Labels, as_features, as_labels
from deepclust_ext.evaluate.scores import scores
from deepclust_ext.ops.cut import smallest_cluster

CLUSTERERS = ("kmeans", "affinity", "ward", "average")
# The graph's neighbours, and starts of k-means.
NEIGHBOURS, STARTS = 20, 10


@own_torch_state()
def cluster_features(
    features: object, n_clusters: int, *, clusterer: str = "kmeans", min_size: int | None = None, seed: int = 0
) -> Labels:
    """Cluster features by one of several methods.

    Parameters
    ----------
    features : array or tensor, (N, d) float
        Pixels or embeddings, taken as they are.
    n_clusters : int
        K, at most N.
    clusterer : {"kmeans", "affinity", "ward", "average"}
        k-means, the best of ten starts; merges by affinity (`agglomerate` without its local term's weight, AC-GDL);
        scikit-learn's agglomerative clustering with Ward's or the average link, whose memory grows with N squared.
    min_size : int, optional
        Of "affinity": the size-aware cut of `agglomerate`. None takes about min(20, N / (10 K)), as `fit affinity`
        does; 1 heeds no size, as the paper.
    seed : int
        Of k-means.

    Returns
    -------
    ndarray, (N,) int64
        Clusters from 0, at most K.

    Raises
    ------
    ValueError
        If the clusterer is unknown, features are not finite, or there are fewer rows than clusters.

    Examples
    --------
    >>> labels = cluster_features([[0.0], [0.1], [5.0]], 2, clusterer="average")
    >>> bool(labels[0] == labels[1] != labels[2])
    True
    """
    check.choice("cluster_features", "clusterer", clusterer, CLUSTERERS)
    rows = as_features("cluster_features", "features", features)
    n_clusters = check.whole_number("cluster_features", "n_clusters", n_clusters, at_least=1)
    if n_clusters > len(rows):
        raise ValueError(
            f"cluster_features: 'n_clusters' must be at most the number of rows ({len(rows)}), got {n_clusters}"
        )
    if clusterer in ("ward", "average"):
        model = require("sklearn.cluster").AgglomerativeClustering(n_clusters, linkage=clusterer)
        return np.asarray(model.fit_predict(rows), dtype=np.int64)
    points = torch.from_numpy(np.ascontiguousarray(rows))
    if clusterer == "kmeans":
        return kmeans(points, n_clusters, n_init=STARTS, max_iter=100, seed=seed).labels.numpy()
    if len(points) == 1:
        return np.zeros(1, dtype=np.int64)
    graph = affinity_graph(points, min(NEIGHBOURS, len(points) - 1))
    size = smallest_cluster(len(points), n_clusters, NEIGHBOURS) if min_size is None else min_size
    found = agglomerate(graph, n_clusters, lam=0.0, x=points, min_size=size)
    return found.labels.cpu().numpy()


def compare_clusterers(
    features: object,
    y: object,
    n_clusters: int,
    *,
    clusterers: Sequence[str] = CLUSTERERS,
    min_size: int | None = None,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Score several clusterers on the same features.

    Parameters
    ----------
    features : array or tensor, (N, d) float
        A network's, say.
    y : array or tensor, (N,) integer
        Classes.
    n_clusters, min_size, seed
        Of `cluster_features`.
    clusterers : sequence of str
        Of `CLUSTERERS`.

    Returns
    -------
    dict of str to dict
        `scores` of each clusterer.

    References
    ----------
    Yang, Parikh and Batra, CVPR 2016, tables 4 and 11.
    """
    classes = as_labels("compare_clusterers", "y", y)
    return {
        name: scores(cluster_features(features, n_clusters, clusterer=name, min_size=min_size, seed=seed), classes)
        for name in clusterers
    }


def transfer(
    model: Any,
    data: Any,
    y: Any = None,
    *,
    n_clusters: int | None = None,
    clusterers: Sequence[str] = ("kmeans", "affinity"),
    seed: int = 0,
) -> dict[str, dict[str, dict[str, float]]]:
    """Cluster another data set in the embedding of a fitted method, and by its pixels.

    Parameters
    ----------
    model : fitted method
        Its `transform` embeds the images.
    data : ImageData, array, tensor, Dataset, path or name
        As `load_data` takes them. Their channels are made the model's, and their size too where that is square: the
        shorter side is scaled and the centre kept.
    y : array-like of int, optional
        Classes, if `data` does not bring them.
    n_clusters : int, optional
        By default the number of classes.
    clusterers, seed
        Of `compare_clusterers`.

    Returns
    -------
    dict of str to dict
        `pixels` and `embedding`: what `compare_clusterers` finds of each, the pixels L2-normalised.

    Raises
    ------
    ValueError
        If there are no classes, or the images cannot be brought to the model's size.

    References
    ----------
    Yang, Parikh and Batra, CVPR 2016, tables 5 and 6.
    """
    channels, height, width = model.image_shape_
    images: ImageData = load_data(data, y=y, channels=channels, image_size=height if height == width else None)
    if images.labels is None:
        raise ValueError("transfer: 'y' must be given, as the data has no labels of its own")
    classes = images.labels.numpy()
    n_clusters = len(np.unique(classes)) if n_clusters is None else n_clusters
    pixels = torch.nn.functional.normalize(as_float(images.images).flatten(1), dim=1)
    features = {"pixels": pixels, "embedding": model.transform(images)}
    return {
        name: compare_clusterers(rows, classes, n_clusters, clusterers=clusterers, seed=seed)
        for name, rows in features.items()
    }
