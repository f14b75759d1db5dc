"""What the log says of a clustering of all images: its sizes, and how it relates to the one before and to classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deepclust_ext.evaluate.diagnostics import churn
from deepclust_ext.evaluate.scores import nmi

# Churn matches K clusters to K: beyond this the table and the matching cost more than the cycle that they describe.
CHURN_CLUSTERS = 4096


def partition_figures(
    labels: Tensor, n_clusters: int, *, before: Tensor | None = None, classes: Tensor | None = None
) -> dict[str, Any]:
    r"""Describe a clustering.

    Parameters
    ----------
    labels : Tensor
        (N,) int64 in [0, n_clusters), on the CPU.
    n_clusters : int
        K.
    before : Tensor, optional
        The clustering it follows, (N,).
    classes : Tensor, optional
        (N,): for a figure in the log, nothing is chosen by it.

    Returns
    -------
    figures : dict
        `empty`, the clusters without an image; `imbalance`, :math:`K \sum_k n_k^2 / N^2`, 1 where all are equally
        large; `nmi_previous` and, up to 4,096 clusters, `churn` against `before`; `nmi_labels` against `classes`.

    Examples
    --------
    >>> partition_figures(torch.tensor([0, 0, 1, 1]), 2)
    {'empty': 0, 'imbalance': 1.0}
    """
    counts = torch.bincount(labels, minlength=n_clusters).double()
    figures: dict[str, Any] = {
        "empty": int((counts == 0).sum()),
        "imbalance": float(n_clusters * counts.square().sum() / len(labels) ** 2),
    }
    if before is not None:
        figures["nmi_previous"] = nmi(before.numpy(), labels.numpy())
        if n_clusters <= CHURN_CLUSTERS:
            figures["churn"] = churn(before.numpy(), labels.numpy())
    if classes is not None:
        figures["nmi_labels"] = nmi(labels.numpy(), classes.cpu().numpy())
    return figures
