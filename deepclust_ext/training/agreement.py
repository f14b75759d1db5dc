"""Mutual information of labellings, from counts: how far two views of the images agree."""

from __future__ import annotations

import torch
from torch import Tensor


def information_of_counts(counts: Tensor) -> tuple[Tensor, Tensor]:
    r"""Mutual information of contingency tables: I(a; b) in nats, and 2 I(a; b) / (H(a) + H(b)).

    Parameters
    ----------
    counts : Tensor
        (..., K, L) counts.

    Returns
    -------
    mi, nmi : Tensor
        float64 (...); the second in [0, 1], and 0 where both sides have a single cluster.

    Examples
    --------
    >>> mi, nmi = information_of_counts(torch.tensor([[5, 0], [0, 5]]))
    >>> round(mi.item(), 3), nmi.item()
    (0.693, 1.0)
    """
    joint = counts.double()
    joint = joint / joint.sum(dim=(-2, -1), keepdim=True).clamp_min(1)

    def entropy(p: Tensor, dims: int) -> Tensor:
        plogp: Tensor = torch.special.xlogy(p, p)
        return -plogp.flatten(-dims).sum(-1)

    rows, columns = entropy(joint.sum(-1), 1), entropy(joint.sum(-2), 1)
    information = rows + columns - entropy(joint, 2)
    total = rows + columns
    nmi: Tensor = torch.where(total > 0, 2 * information / total.clamp_min(1e-300), 0.0)
    return information.clamp_min(0), nmi.clamp(0, 1)


def information_of_labels(a: Tensor, b: Tensor, n_clusters: int) -> tuple[float, float]:
    """`information_of_counts` of two labellings (N,) in [0, n_clusters), without their K x K table."""
    cells, counts = torch.unique(a * n_clusters + b, return_counts=True)
    rows, columns = cells // n_clusters, cells % n_clusters
    share = counts.double() / counts.sum()

    def entropy(p: Tensor) -> Tensor:
        plogp: Tensor = torch.special.xlogy(p, p)
        return -plogp.sum()

    def marginal(of: Tensor) -> Tensor:
        return torch.zeros(n_clusters, dtype=torch.float64, device=share.device).index_add_(0, of, share)

    total = entropy(marginal(rows)) + entropy(marginal(columns))
    information = (total - entropy(share)).clamp_min(0)
    return float(information), float((2 * information / total).clamp(0, 1)) if total > 0 else 0.0
