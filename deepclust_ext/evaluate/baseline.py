"""The baseline every run is shown beside: k-means on pixels."""

from __future__ import annotations

import numpy as np
import torch

from deepclust_ext import _checks as check
from deepclust_ext import kmeans
from deepclust_ext._isolation import own_torch_state
from deepclust_ext.evaluate._checks import Labels, as_array, as_features

MAX_ITER = 300


@own_torch_state()
def kmeans_pixels(images: object, n_clusters: int, *, seed: int, n_init: int = 10) -> Labels:
    """Cluster images by k-means on their pixels: `deepclust_ext.kmeans`, until it has settled.

    Parameters
    ----------
    images : array or tensor, (N, ...) uint8 or float
        Images of any shape. They are divided by the largest value, so that no scale is too small or too large.
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
    >>> bool(labels[0] == labels[1] != labels[2])
    True
    """
    pixels = as_array(images)
    if pixels.ndim < 2 or pixels.size == 0:
        raise ValueError(f"kmeans_pixels: 'images' must have shape (N, ...), none of it 0, got shape {pixels.shape}")
    flat = as_features("kmeans_pixels", "images", pixels.reshape(len(pixels), -1).astype(np.float32))
    n_clusters = check.whole_number("kmeans_pixels", "n_clusters", n_clusters)
    if not 1 <= n_clusters <= len(flat):
        raise ValueError(
            f"kmeans_pixels: 'n_clusters' must be between 1 and the number of images ({len(flat)}), got {n_clusters!r}"
        )
    largest = float(max(flat.max(), -flat.min()))
    if largest > 0:
        flat = (flat / np.float64(largest)).astype(np.float32)
    return kmeans(torch.from_numpy(flat), n_clusters, n_init=n_init, max_iter=MAX_ITER, seed=seed).labels.numpy()
