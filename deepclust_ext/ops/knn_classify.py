"""The weighted k-NN classifier: plain torch on top of `knn`."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from deepclust_ext import _checks as check
from deepclust_ext.ops import _raw
from deepclust_ext.ops._common import (
    check_floating,
    checked_by_value,
    matched_rows,
    refuse_capture,
)

__all__ = ["KNNClassification", "knn_classify"]

# More scores than this a query would not fit in memory.
_MOST_CLASSES = 2**31 - 1


class KNNClassification(NamedTuple):
    """What `knn_classify` returns."""

    labels: Tensor
    """(..., Q), int64: the class with the highest score, the lowest of them in a tie."""
    scores: Tensor
    """(..., Q, n_classes): each class's share of the votes; they sum to 1."""


def knn_classify(
    bank: Tensor,
    labels: Tensor,
    query: Tensor,
    *,
    k: int = 200,
    temperature: float = 0.1,
    n_classes: int | None = None,
) -> KNNClassification:
    r"""Classify by the votes of the k rows with the highest cosine similarity.

    .. math:: s_c \propto \sum_{j \in N_k(q)} e^{\cos(q, b_j) / \tau} \, [y_j = c]

    Parameters
    ----------
    bank : Tensor, shape (..., N, d), float16, bfloat16, float32 or float64
        Labelled features; a zero row has similarity 0 with everything.
    labels : Tensor, shape (N,) or (..., N), int64
        Their classes, 0 to n_classes - 1.
    query : Tensor, shape (..., Q, d)
        What to classify. Leading dimensions broadcast against those of `bank`; a different dtype is promoted.
    k : int, default 200
        Neighbours that vote; cut to the bank's size.
    temperature : float, default 0.1
        tau > 0: the smaller, the more the nearest count.
    n_classes : int, optional
        Width of the scores; one more than the largest label by default, which needs the labels' values.

    Returns
    -------
    KNNClassification
        `labels` (..., Q) and `scores` (..., Q, n_classes), float32 (float64 for float64 inputs).

    Raises
    ------
    TypeError
        `labels` are not int64, `bank` or `query` is not a floating-point tensor, or another argument's type is wrong.
    ValueError
        Shapes or devices do not fit together, the bank is empty, `k` or `temperature` is not positive, labels lie
        outside of 0 to n_classes - 1, or features are NaN or infinite.
    RuntimeError
        A CUDA graph is being recorded.

    References
    ----------
    Wu, Xiong, Yu and Lin, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR 2018,
    section 3.4.

    Examples
    --------
    >>> import torch
    >>> from deepclust_ext import knn_classify
    >>> bank, labels = torch.eye(2), torch.tensor([3, 5])
    >>> knn_classify(bank, labels, torch.tensor([[0.1, 2.0]]), k=1).labels
    tensor([5])
    """
    bank = check_floating("knn_classify", "bank", bank).detach()
    query = check_floating("knn_classify", "query", query).detach()
    k = check.whole_number("knn_classify", "k", k, at_least=1)
    temperature = check.number("knn_classify", "temperature", temperature)
    if not temperature > 0:
        raise ValueError(f"knn_classify: 'temperature' must be positive, got {temperature:g}")
    if bank.dim() < 2 or bank.shape[-2] < 1 or bank.shape[-1] < 1:
        raise ValueError(
            f"knn_classify: 'bank' must have shape (..., N, d) with N >= 1 and d >= 1, got {tuple(bank.shape)}"
        )
    if query.dim() < 2 or query.shape[-1] != bank.shape[-1]:
        raise ValueError(
            f"knn_classify: 'query' must have shape (..., Q, {bank.shape[-1]}) as 'bank' has, got {tuple(query.shape)}"
        )
    refuse_capture("knn_classify", bank)
    classes = _check_labels(bank, labels, n_classes)
    bank, query = matched_rows("knn_classify", "bank", bank, "query", query)
    args = (bank, query, min(k, bank.shape[-2]), "cosine")
    similarity, neighbours = checked_by_value("knn_classify", _raw.knn, *args, x="bank")
    # The first is the largest: without it the weights overflow at small temperatures. One that the dtype rounds to 0
    # would make 0 / 0 of it.
    temperature = max(temperature, torch.finfo(similarity.dtype).tiny)
    weights = ((similarity - similarity[..., :1]) / temperature).exp()
    voters = labels.unsqueeze(-2).expand(*neighbours.shape[:-1], -1)
    scores = count_votes(voters.gather(-1, neighbours), weights, classes, in_turn=weights.is_cuda)
    scores = scores / scores.sum(-1, keepdim=True)
    return KNNClassification(scores.argmax(-1), scores)


def count_votes(votes: Tensor, weights: Tensor, classes: int, *, in_turn: bool) -> Tensor:
    """Scores (..., Q, classes): each query's weights (..., Q, k), added to the classes of its votes in their order.

    On a GPU, scatter_add adds the votes for one class in no fixed order. `in_turn` gives it one neighbour of every
    query at a time, where there is nothing to order.
    """
    scores = weights.new_zeros(*weights.shape[:-1], classes)
    if not in_turn:
        return scores.scatter_add(-1, votes, weights)
    for vote, weight in zip(votes.split(1, -1), weights.split(1, -1), strict=True):
        scores = scores.scatter_add(-1, vote, weight)
    return scores


def _check_labels(bank: Tensor, labels: Tensor, n_classes: int | None) -> int:
    """The number of classes."""
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        got, mend = (labels.dtype, ".long()") if isinstance(labels, Tensor) else (type(labels).__name__, "torch.tensor")
        raise TypeError(f"knn_classify: 'labels' must be an int64 tensor, got {got}; convert it with {mend}")
    if labels.shape not in (bank.shape[-2:-1], bank.shape[:-1]):
        raise ValueError(
            f"knn_classify: 'labels' must have shape ({bank.shape[-2]},) or the bank's {tuple(bank.shape[:-1])}, "
            f"got {tuple(labels.shape)}"
        )
    if labels.device != bank.device:
        raise ValueError(
            f"knn_classify: 'labels' must be on bank's device {bank.device}, got {labels.device}; "
            f"move it with .to({str(bank.device)!r})"
        )
    if n_classes is not None:
        n_classes = check.whole_number("knn_classify", "n_classes", n_classes, at_least=1, at_most=_MOST_CLASSES)
    if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        if n_classes is None:
            raise ValueError("knn_classify: 'n_classes' must be given under torch.compile and vmap, got None")
        return n_classes  # scatter_add itself refuses labels out of range
    low, high = (int(v) for v in labels.aminmax()) if labels.numel() else (0, 0)
    if low < 0 or high >= (n_classes or _MOST_CLASSES):
        limit = f"between 0 and n_classes - 1 = {n_classes - 1}" if n_classes else f"between 0 and {_MOST_CLASSES - 1}"
        raise ValueError(f"knn_classify: 'labels' must be {limit}, got {low if low < 0 else high}")
    return high + 1 if n_classes is None else n_classes
