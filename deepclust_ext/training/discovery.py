"""Neighbourhoods for AND and Super-AND: who is nearest to whom in a memory bank, and who is sure enough to be told."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from deepclust_ext.evaluate.retrieval import retrieval_figures
from deepclust_ext.training.learner import Record
from deepclust_ext.training.sharing import shared_entropy, shared_knn


class Neighbourhoods(NamedTuple):
    """What `discover` returns."""

    neighbors: Tensor
    """(N, k) int64: the k nearest rows of an anchor, -1 for the others."""
    anchors: Tensor
    """(n,) int64: the rows of lowest entropy, ascending."""
    entropy: Tensor
    """(N,): that of each row."""

    def figures(self, classes: Tensor | None) -> Record:
        """For the log; with classes (N,) `anchor_consistency`, the share of the anchors' neighbours of their class."""
        record: Record = {"anchors": len(self.anchors), "entropy": float(self.entropy.double().mean())}
        if classes is not None and len(self.anchors) > 0:
            y = classes.to(self.neighbors.device)
            same = y[self.neighbors[self.anchors]] == y[self.anchors][:, None]
            record["anchor_consistency"] = float(same.double().mean())
        return record


def discover(bank: Tensor, k: int, n_anchors: int, *, temperature: float) -> Neighbourhoods:
    r"""Find each row's neighbours, and choose the anchors that have them.

    .. math:: \tilde N(i) = \text{top-}k_{j \neq i}\; m_j^\top m_i, \qquad H_i = -\sum_j p_i^j \ln p_i^j, \quad
              p_i = \mathrm{softmax}(M m_i / \tau)

    with the row itself among the j of the entropy, and the `n_anchors` rows of lowest entropy as anchors, ties to the
    lowest index.

    Parameters
    ----------
    bank : Tensor, (N, d)
        The rows, one per image.
    k : int
        Neighbours of an anchor, below N.
    n_anchors : int
        At most N.
    temperature : float
        tau.

    Returns
    -------
    Neighbourhoods

    References
    ----------
    Super-AND, arXiv 2002.12158, equations 7 to 9; Huang et al., "Unsupervised Deep Learning by Neighbourhood
    Discovery", ICML 2019.

    Examples
    --------
    >>> bank = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), dim=1)
    >>> discover(bank, 1, 1, temperature=0.1).neighbors.tolist()
    [[-1], [-1], [1]]
    """
    nearest = shared_knn(bank, k, metric="inner").indices
    entropy = shared_entropy(bank, temperature=temperature)
    anchors = entropy.argsort(stable=True)[:n_anchors].sort().values
    neighbors = torch.full_like(nearest, -1)
    neighbors[anchors] = nearest[anchors]
    return Neighbourhoods(neighbors, anchors, entropy)


def bank_figures(rows: Tensor, classes: Tensor | None, *, temperature: float) -> Record:
    """Describe a bank, or embeddings (N, d) in its place, for the log.

    Parameters
    ----------
    rows : Tensor, (N, d)
        N >= 2.
    classes : Tensor, (N,), optional
        Nothing is chosen by them.
    temperature : float
        tau.

    Returns
    -------
    record : dict
        `unification_entropy`, the mean entropy of the softmax over the other rows, at most ln(N - 1); with classes also
        `retrieval_figures`.
    """
    each = torch.arange(len(rows), device=rows.device)
    entropy = shared_entropy(rows, each, temperature=temperature)
    record: Record = {"unification_entropy": float(entropy.double().mean())}
    return record if classes is None else record | retrieval_figures(rows, classes)
