"""The baseline every run is shown beside: k-means on pixels."""

from __future__ import annotations

import numpy as np

from deepclust_ext import _checks as check
from deepclust_ext._isolation import own_torch_state
from deepclust_ext._optional import require
from deepclust_ext.evaluate._checks import Labels, as_array, as_features


@own_torch_state()
def kmeans_pixels(images: object, n_clusters: int, *, seed: int, n_init: int = 10) -> Labels:
    """Cluster images by scikit-learn's k-means on their pixels.

    Parameters
    ----------
    images : array or tensor, (N, ...) uint8 or float
        Images of any shape; integers are divided by 255, which changes no label.
    n_clusters : int
        K, at most N.
    seed : int
        Draws the starting centroids.
    n_init : int
        Starts, of which the one with the lowest inertia counts.

    Returns
    -------
    ndarray, (N,) int64

    Raises
    ------
    ValueError
        If there are fewer images than clusters, or pixels are not finite.

    Examples
    --------
    >>> labels = kmeans_pixels([[0.0], [0.1], [5.0]], 2, seed=0)
    >>> bool(labels[0] == labels[1] != labels[2])  # which cluster is number 0 is scikit-learn's choice
    True
    """
    pixels = as_array(images)
    if pixels.ndim < 2 or pixels.size == 0:
        raise ValueError(f"kmeans_pixels: 'images' must have shape (N, ...), none of it 0, got shape {pixels.shape}")
    scale = 255.0 if np.issubdtype(pixels.dtype, np.integer) else 1.0
    flat = as_features("kmeans_pixels", "images", pixels.reshape(len(pixels), -1).astype(np.float32) / scale)
    n_clusters = check.whole_number("kmeans_pixels", "n_clusters", n_clusters)
    if not 1 <= n_clusters <= len(flat):
        raise ValueError(
            f"kmeans_pixels: 'n_clusters' must be between 1 and the number of images ({len(flat)}), got {n_clusters!r}"
        )
    kmeans = require("sklearn.cluster").KMeans(n_clusters, n_init=n_init, random_state=seed)
    return np.asarray(kmeans.fit_predict(flat), dtype=np.int64)
