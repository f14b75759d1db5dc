"""`affinity_graph` and `initial_clusters` spelled out in plain torch: the tests' oracle."""

from __future__ import annotations

import torch
from torch import Tensor

from deepclust_ext.reference.knn import knn

__all__ = ["affinity_graph", "initial_clusters"]


def affinity_graph(x: Tensor, k: int = 20, *, a: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    """Indices and weights (n, k), and sigma2; see `deepclust_ext.affinity_graph`."""
    distances, indices = knn(x, k)
    sigma2 = a * distances.mean()
    weights = torch.exp(-distances / sigma2) if sigma2 > 0 else torch.ones_like(distances)
    return indices, weights, sigma2


def initial_clusters(indices: Tensor) -> Tensor:
    """Labels (n,): the lowest of a point, its first neighbour and those whose first it is, again until none changes."""
    labels = torch.arange(len(indices))
    first = indices[:, 0]
    while True:
        lower = torch.minimum(labels, labels[first]).scatter_reduce(0, first, labels, "amin")
        if torch.equal(lower, labels):
            numbered: Tensor = torch.unique(labels, return_inverse=True)[1]
            return numbered
        labels = lower
