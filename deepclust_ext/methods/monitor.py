"""What the log says about the heads: occupancy, agreement between views, collapse. No labels are used."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

LARGEST_SHARE = 0.9
USED_SHARE = 0.5


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


class HeadStatistics:
    """Counts the clusters of every head over an epoch, from the probabilities that the loss needs anyway.

    Nothing is read back from the device before `summary`, so that counting never waits for a GPU.

    Parameters
    ----------
    n_heads, n_clusters : int
        H and K.
    device : torch.device
        Where the probabilities are.
    """

    def __init__(self, n_heads: int, n_clusters: int, device: torch.device) -> None:
        self.n_clusters = n_clusters
        # counts[h, k]: assignments over all views. pairs[h, k, l]: first view in k, second in l; None until there
        # is a second view, as K^2 counts can be large.
        self.counts = torch.zeros(n_heads, n_clusters, dtype=torch.int64, device=device)
        self.pairs: Tensor | None = None

    def add(self, labels: Tensor) -> None:
        """Count labels (A, H, n)."""
        ones = torch.ones((), dtype=torch.int64, device=labels.device)
        by_head = labels.transpose(0, 1).flatten(1)
        self.counts.scatter_add_(1, by_head, ones.expand_as(by_head))
        if labels.shape[0] > 1:
            if self.pairs is None:
                self.pairs = self.counts.new_zeros(*self.counts.shape, self.n_clusters)
            cells = labels[0] * self.n_clusters + labels[1]
            self.pairs.flatten(1).scatter_add_(1, cells, ones.expand_as(cells))

    def summary(self) -> dict[str, list[Any]]:
        """One list with an entry a head for each figure; entropy is a share of ln K. No views, no agreement."""
        counts = self.counts.cpu()
        share = counts.double() / counts.sum(1, keepdim=True).clamp_min(1)
        entropy = -torch.special.xlogy(share, share).sum(1) / math.log(max(2, self.n_clusters))
        agreement: dict[str, list[Any]] = {}
        if self.pairs is not None:
            _, nmi = information_of_counts(self.pairs.cpu())
            agreement["nmi_views"] = [round(value, 6) for value in nmi.tolist()]
        return agreement | {
            "occupancy_entropy": [round(value, 6) for value in entropy.tolist()],
            "clusters_used": (counts > 0).sum(1).tolist(),
            "largest_share": [round(value, 6) for value in share.amax(1).tolist()],
        }

    def state(self) -> dict[str, Tensor | None]:
        """What a checkpoint in the middle of an epoch needs."""
        return {"counts": self.counts, "pairs": self.pairs}

    def load(self, state: dict[str, Any]) -> None:
        """Take over a saved state."""
        self.counts.copy_(state["counts"])
        self.pairs = None if state["pairs"] is None else state["pairs"].to(self.counts.device)


def collapsed_heads(summary: dict[str, list[Any]], n_clusters: int) -> dict[int, str]:
    """Heads that use fewer than half of their clusters, or put more than 90 % of the images in one.

    Parameters
    ----------
    summary : dict
        From `HeadStatistics.summary`.
    n_clusters : int
        K.

    Returns
    -------
    reasons : dict of int to str
        A phrase for each collapsed head.
    """
    figures = zip(summary["clusters_used"], summary["largest_share"], strict=True)
    reasons = {head: collapse_reason(*pair, n_clusters) for head, pair in enumerate(figures)}
    return {head: reason for head, reason in reasons.items() if reason is not None}


def collapse_reason(used: int, largest: float, n_clusters: int) -> str | None:
    """Say in a phrase why labels have collapsed; None if they have not.

    Parameters
    ----------
    used : int
        Clusters with an image.
    largest : float
        Share of the images in the largest cluster.
    n_clusters : int
        K.

    Examples
    --------
    >>> collapse_reason(3, 0.5, 10)
    'uses 3 of 10 clusters'
    """
    if used < USED_SHARE * n_clusters:
        return f"uses {used} of {n_clusters} clusters"
    if largest > LARGEST_SHARE:
        return f"has {100 * largest:.0f} % of the images in one cluster"
    return None
