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
) -> tuple[Tensor, Tensor, Tensor, int, list[tuple[float, float, int, float]]]:
    """Centroids, labels, inertia, number of updates and history of one matrix x (N, d) from given centroids.

    A record holds objective, share of points moved, empty clusters and imbalance; see `deepclust_ext.kmeans`.
    """
    x = x if x.dtype == torch.float64 else x.float()
    centroids = centroids.to(x.dtype, copy=True)
    if spherical:
        x, centroids = (t / t.norm(dim=-1, keepdim=True).clamp_min(1e-30) for t in (x, centroids))
    n, clusters = len(x), len(centroids)
    previous = torch.full((n,), -1)
    history = []
    n_iter = 0
    for _ in range(max_iter):
        labels, squared = kmeans_assign(x, centroids)
        counts = torch.bincount(labels, minlength=clusters)
        imbalance = clusters * counts.double().square().sum().item() / n**2
        moved = (labels != previous).double().mean().item()
        history.append((squared.double().sum().item(), moved, int((counts == 0).sum()), imbalance))
        if empty != "keep":
            _seed_empty(labels, squared.clone(), counts, empty)
        before = centroids.clone()
        for k in range(clusters):
            if counts[k] > 0:
                mean = x[labels == k].double().mean(0)
                if spherical:
                    mean = mean / mean.norm() if mean.norm() > 1e-12 else before[k]
                centroids[k] = mean.to(x.dtype)
        previous = labels
        n_iter += 1
        if (centroids - before).double().square().sum(-1).max() <= tol:
            break
    labels, squared = kmeans_assign(x, centroids)
    return centroids, labels, squared.double().sum(), n_iter, history


def _seed_empty(labels: Tensor, squared: Tensor, counts: Tensor, rule: str) -> None:
    """Give each empty cluster a point, in order; changes `labels`, `squared` and `counts`."""
    for k in (counts == 0).nonzero().flatten().tolist():
        point = -1
        if rule == "split":
            largest = int(counts.argmax())
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
        labels[point] = k
        squared[point] = 0
