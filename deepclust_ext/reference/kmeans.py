"""`kmeans` and `kmeans_assign` spelled out in plain torch: the tests' oracle."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["kmeans", "kmeans_assign"]


def kmeans_assign(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Labels and squared distances of x (..., N, d) to centroids (..., K, d); see `deepclust_ext.kmeans_assign`."""
    dtype = torch.promote_types(x.dtype, centroids.dtype)
    dtype = dtype if dtype == torch.float64 else torch.float32
    difference = x.to(dtype).unsqueeze(-2) - centroids.to(dtype).unsqueeze(-3)
    squared, labels = difference.square().sum(-1).min(-1)
    return labels, squared


def kmeans(
    x: Tensor,
    centroids: Tensor,
    *,
    max_iter: int = 20,
    tol: float = 0.0,
    empty: str = "split",
    spherical: bool = False,
    sample_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, int, list[tuple[float, float, int, float]]]:
    """Centroids, labels, inertia, number of updates and history of one matrix x (N, d) from given centroids.

    A record holds objective, share of points moved, empty clusters and imbalance; see `deepclust_ext.kmeans`.
    """
    x = x if x.dtype == torch.float64 else x.float()
    centroids = centroids.to(x.dtype, copy=True)
    if spherical:
        x, centroids = (t / t.norm(dim=-1, keepdim=True).clamp_min(1e-30) for t in (x, centroids))
    n, clusters = len(x), len(centroids)
    weights = torch.ones(n, dtype=torch.float64) if sample_weight is None else sample_weight.double()
    counted = (weights > 0).long()
    previous = torch.full((n,), -1)
    history = []
    n_iter = 0
    for _ in range(max_iter):
        labels, squared = kmeans_assign(x, centroids)
        counts = torch.zeros(clusters, dtype=torch.int64).index_add_(0, labels, counted)
        sizes = torch.zeros(clusters, dtype=torch.float64).index_add_(0, labels, weights)
        imbalance = clusters * sizes.square().sum().item() / weights.sum().item() ** 2
        moved = (labels != previous).double().mean().item()
        history.append(((weights * squared).sum().item(), moved, int((counts == 0).sum()), imbalance))
        if empty != "keep":
            _seed_empty(labels, squared * counted, counts, sizes, weights, empty)
        before = centroids.clone()
        for k in range(clusters):
            if counts[k] > 0:
                members = labels == k
                mean = (weights[members, None] * x[members].double()).sum(0) / weights[members].sum()
                if spherical:
                    mean = mean / mean.norm() if mean.norm() > 1e-12 else before[k]
                centroids[k] = mean.to(x.dtype)
        previous = labels
        n_iter += 1
        if (centroids - before).double().square().sum(-1).max() <= tol:
            break
    labels, squared = kmeans_assign(x, centroids)
    return centroids, labels, (weights * squared).sum(), n_iter, history


def _seed_empty(labels: Tensor, squared: Tensor, counts: Tensor, sizes: Tensor, weights: Tensor, rule: str) -> None:
    """Give each empty cluster a point, in order; changes all but the weights."""
    for k in (counts == 0).nonzero().flatten().tolist():
        point = -1
        if rule == "split":
            largest = int(sizes.argmax())
            members = torch.where(labels == largest, squared, torch.zeros_like(squared))
            if counts[largest] > 1 and members.max() > 0:
                point = int(members.argmax())
        if point < 0:
            others = torch.where(counts[labels] > 1, squared, torch.zeros_like(squared))
            if others.max() <= 0:
                return
            point = int(others.argmax())
        counts[labels[point]] -= 1
        counts[k] += 1
        sizes[labels[point]] -= weights[point]
        sizes[k] += weights[point]
        labels[point] = k
        squared[point] = 0
