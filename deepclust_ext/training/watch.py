"""What the log says about the heads: occupancy, agreement between views, collapse. No labels are used."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.training.agreement import information_of_counts
from deepclust_ext.training.learner import Record, State

LARGEST_SHARE = 0.9
USED_SHARE = 0.5
# Collapse in the first epochs is common and passes; a warning before this share of the run would be noise.
QUIET_SHARE = 0.1


def occupancy_figures(counts: Tensor) -> Record:
    """One list with an entry a head for each figure, of assignments (H, K); entropy is a share of ln K.

    Examples
    --------
    >>> occupancy_figures(torch.tensor([[5, 5], [9, 0]]))["clusters_used"]
    [2, 1]
    """
    share = counts.double() / counts.sum(1, keepdim=True).clamp_min(1)
    entropy = -torch.special.xlogy(share, share).sum(1) / math.log(max(2, counts.shape[1]))
    return {
        "occupancy_entropy": [round(value, 6) for value in entropy.tolist()],
        "clusters_used": (counts > 0).sum(1).tolist(),
        "largest_share": [round(value, 6) for value in share.amax(1).tolist()],
    }


class Watch:
    """Counts the clusters of every head over an epoch, and says once when a head has collapsed.

    Nothing is read back from the device before `figures`, so that counting never waits for a GPU.

    Parameters
    ----------
    name : str
        The method, for warnings.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.collapsed: list[int] = []
        self._warned: set[int] = set()
        # counts[h, k]: assignments over all views. pairs[h, k, l]: first view in k, second in l; None until there
        # is a second view, as K^2 counts can be large.
        self.counts: Tensor | None = None
        self.pairs: Tensor | None = None

    @torch.no_grad()
    def add(self, probabilities: Tensor) -> None:
        """Count the largest entries of probabilities (A, H, n, K)."""
        labels, n_clusters = probabilities.argmax(-1), probabilities.shape[-1]
        if self.counts is None:
            self.counts = labels.new_zeros(labels.shape[1], n_clusters)
        ones = torch.ones((), dtype=torch.int64, device=labels.device)
        by_head = labels.transpose(0, 1).flatten(1)
        self.counts.scatter_add_(1, by_head, ones.expand_as(by_head))
        if labels.shape[0] > 1:
            if self.pairs is None:
                self.pairs = self.counts.new_zeros(*self.counts.shape, n_clusters)
            cells = labels[0] * n_clusters + labels[1]
            self.pairs.flatten(1).scatter_add_(1, cells, ones.expand_as(cells))

    def figures(self) -> Record:
        """The epoch's figures, one list with an entry a head for each; none where nothing was counted."""
        agreement: Record = {}
        if self.pairs is not None:
            _, nmi = information_of_counts(self.pairs.cpu())
            agreement["nmi_views"] = [round(value, 6) for value in nmi.tolist()]
        return agreement if self.counts is None else agreement | occupancy_figures(self.counts.cpu())

    def look(self, record: Record, watched: tuple[int, int] | None, *, early: bool, log: Callable[..., None]) -> None:
        """Log every head that newly collapsed by the epoch's record, and warn once a head unless it is `early`."""
        if watched is None or "clusters_used" not in record:
            return
        reasons = collapsed_heads(record, watched[1])
        for head, reason in reasons.items():
            if head not in self.collapsed:
                log("warning", epoch=record["epoch"], kind="collapse", head=head, message=reason)
            if head not in self._warned and not early:
                self._warned.add(head)
                warnings.warn(
                    f"{self.name}: head {head} {reason} in epoch {record['epoch']}: it has collapsed",
                    DeepclustWarning,
                    stacklevel=2,
                )
        self.collapsed = sorted(reasons)

    def reset(self) -> None:
        """Forget the epoch's counts."""
        self.counts = self.pairs = None

    def state(self) -> State:
        """What a checkpoint in the middle of an epoch needs."""
        return {"counts": self.counts, "pairs": self.pairs, "collapsed": list(self.collapsed)}

    def load(self, state: State, device: torch.device) -> None:
        """Take over a saved state."""
        self.counts, self.pairs = (
            None if state[name] is None else state[name].to(device) for name in ("counts", "pairs")
        )
        self.collapsed = list(state["collapsed"])


def collapsed_heads(figures: dict[str, Any], n_clusters: int) -> dict[int, str]:
    """Heads that use fewer than half of their clusters, or put more than 90 % of the images in one.

    Parameters
    ----------
    figures : dict
        With `clusters_used` and `largest_share`, as `occupancy_figures` names them.
    n_clusters : int
        K.

    Returns
    -------
    reasons : dict of int to str
        A phrase for each collapsed head.
    """
    pairs = zip(figures["clusters_used"], figures["largest_share"], strict=True)
    reasons = {head: collapse_reason(*pair, n_clusters) for head, pair in enumerate(pairs)}
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
