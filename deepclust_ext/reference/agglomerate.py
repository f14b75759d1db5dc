"""`agglomerate` with every affinity computed anew before every merge, in plain torch: the tests' oracle."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["agglomerate"]


def agglomerate(
    indices: Tensor,
    weights: Tensor,
    labels: Tensor,
    n_clusters: int,
    *,
    kc: int = 5,
    lam: float = 1.0,
    update: str = "exact",
    x: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Children (M, 2) and affinities (M,) of the merges of clusters 0 to m - 1; see `deepclust_ext.agglomerate`.

    In float64 and with dense matrices (n, n). Equal bit for bit where float64 holds the sums of products of weights, as
    of multiples of 2^-10. Without `x`, merging stops where no affinity is left.
    """
    n = len(indices)
    dense = torch.zeros(n, n, dtype=torch.float64).index_put_(
        (torch.arange(n)[:, None].expand_as(indices), indices), weights.double(), accumulate=True
    )
    clusters = [(labels == c).nonzero().flatten() for c in range(int(labels.max()) + 1)]  # empty: has joined another
    initial, nodes = [len(members) for members in clusters], list(range(len(clusters)))
    pairwise = _products(dense, labels, len(clusters))
    children: list[list[int]] = []
    affinities: list[float] = []
    while len(clusters) - len(children) > n_clusters:
        alive = [c for c, members in enumerate(clusters) if len(members)]
        sizes = torch.tensor([len(clusters[c]) for c in alive], dtype=torch.float64)
        if update == "exact":
            now = torch.empty_like(labels)
            for number, c in enumerate(alive):
                now[clusters[c]] = number
            shares = _products(dense, now, len(alive)) / (sizes**2)[:, None]
        else:
            # Sums over the clusters to begin with, each by its own size where they slide.
            parts = pairwise / torch.tensor(initial, dtype=torch.float64)[:, None] if update == "slide" else pairwise
            member = torch.stack([torch.bincount(labels[clusters[c]], minlength=len(clusters)) for c in alive]) > 0
            divisor = sizes if update == "slide" else sizes**2
            shares = member.double() @ parts @ member.double().T / divisor[:, None]
        affinity = shares + shares.T
        affinity.fill_diagonal_(0.0)
        i, j = _chosen(affinity, kc, lam)
        value = affinity[i, j].item()
        if value == 0:
            if x is None:
                break
            i, j = _nearest([x[clusters[c]].double() for c in alive])
        first, second = sorted((alive[i], alive[j]))
        children.append(sorted((nodes[first], nodes[second])))
        affinities.append(value)
        nodes[first] = len(clusters) + len(children) - 1
        clusters[first] = torch.cat([clusters[first], clusters[second]])
        clusters[second] = clusters[second][:0]
    return torch.tensor(children, dtype=torch.int64).view(-1, 2), torch.tensor(affinities, dtype=torch.float64)


def _products(dense: Tensor, labels: Tensor, count: int) -> Tensor:
    """U (count, count): the product of a cluster's weights to a point and from it, summed over each other cluster."""
    member = torch.nn.functional.one_hot(labels, count).double()
    received, given = member.T @ dense, (dense @ member).T
    return (received * given) @ member


def _chosen(affinity: Tensor, kc: int, lam: float) -> tuple[int, int]:
    """The cluster of the highest score and the one nearest to it, the lowest where several are."""
    highest = torch.nn.functional.pad(affinity.sort(dim=1, descending=True).values, (0, kc))[:, :kc]
    gaps = torch.zeros(len(affinity), dtype=torch.float64)
    for k in range(1, kc):
        gaps = gaps + (highest[:, 0] - highest[:, k])
    scores = highest[:, 0] + lam * gaps / (kc - 1) if kc > 1 else highest[:, 0]
    i = int((scores == scores.max()).nonzero()[0])
    return i, int((affinity[i] == affinity[i].max()).nonzero()[0])


def _nearest(members: list[Tensor]) -> tuple[int, int]:
    """The lowest pair with the nearest centroids."""
    centroids = torch.stack([rows.sum(0) / len(rows) for rows in members])
    distances = (centroids[:, None] - centroids).square().sum(-1).fill_diagonal_(torch.inf)
    pair = int((distances == distances.min()).flatten().nonzero()[0])
    return pair // len(members), pair % len(members)
