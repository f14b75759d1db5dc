"""Rows that are nearly the same: all pairs below a distance, and the groups that they make."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from deepclust_ext import _checks as check
from deepclust_ext._optional import require
from deepclust_ext.ops._common import all_finite
from deepclust_ext.ops.knn import knn

__all__ = ["Duplicates", "near_duplicates"]

METRICS = ("cosine", "rms")
# Neighbours that are looked at first; of a row that has so many near ones, twice as many, and so on.
_FIRST = 8


class Duplicates(NamedTuple):
    """What `near_duplicates` finds."""

    pairs: Tensor
    """(P, 2) int64, i < j, in order."""
    distances: Tensor
    """(P,) float32, or float64 for float64 rows."""
    groups: Tensor
    """(N,) int64: rows that pairs connect have one number, by the first row in order; -1 for a row in no pair."""


def near_duplicates(x: Tensor, distance: float, *, metric: str = "cosine") -> Duplicates:
    r"""All pairs of rows that are at most `distance` apart, exactly, and the groups that they connect.

    .. math:: d_{ij} = 1 - \frac{x_i \cdot x_j}{|x_i| |x_j|} \quad \text{or} \quad \sqrt{\tfrac 1 d |x_i - x_j|^2}

    for the metrics "cosine" (of embeddings) and "rms" (of pixels). The neighbours of each row are searched exactly, and
    of more and more of them as long as all are near. Rows that are equal stand in a pair with the first of them only,
    and so does what is near them: many copies of one image make no square of pairs. A group may be wider than
    `distance`: its rows are connected by pairs.

    Parameters
    ----------
    x : Tensor, shape (N, d), float16, bfloat16, float32 or float64
        The rows; a row of zeros is at cosine distance 0 from its like, and 1/2 from all others.
    distance : float
        The largest, at least 0.
    metric : {"cosine", "rms"}
        What is measured.

    Returns
    -------
    Duplicates

    Raises
    ------
    TypeError, ValueError
        If an argument cannot be used.

    Examples
    --------
    >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.01], [1.0, 0.0]])
    >>> found = near_duplicates(x, 0.01)
    >>> found.pairs.tolist(), found.groups.tolist()
    ([[0, 2], [0, 3]], [0, -1, 0, 0])
    """
    check.choice("near_duplicates", "metric", metric, METRICS)
    check.number("near_duplicates", "distance", distance, at_least=0)
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"near_duplicates: 'x' must be a floating-point tensor, got {getattr(x, 'dtype', type(x))}")
    if x.dim() != 2 or x.shape[1] == 0:
        raise ValueError(f"near_duplicates: 'x' must have shape (N, d) with d >= 1, got {tuple(x.shape)}")
    rows = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    if not all_finite(rows):
        raise ValueError("near_duplicates: 'x' must be finite, got NaN or infinite values")
    if metric == "cosine":
        # Scaled by the largest number first: squares of very large and very small ones would leave the dtype's range.
        rows = rows / rows.abs().amax(1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
        rows = torch.nn.functional.normalize(rows, dim=1)
    first, copies, of = _distinct(rows)
    values, pairs = _near(rows[first], 2.0 * distance if metric == "cosine" else distance**2 * x.shape[1])
    distances = values / 2 if metric == "cosine" else (values / x.shape[1]).sqrt()
    pairs = torch.cat([first[pairs].sort(1).values, torch.stack([of, copies], 1)])
    distances = torch.cat([distances, distances.new_zeros(len(copies))])
    order = torch.from_numpy(np.lexsort((pairs[:, 1].cpu().numpy(), pairs[:, 0].cpu().numpy()))).to(pairs.device)
    return Duplicates(pairs[order], distances[order], groups_of(pairs, len(x)))


def groups_of(pairs: Tensor, n: int) -> Tensor:
    """Number the connected rows of N by their first member; -1 for those in no pair.

    Examples
    --------
    >>> groups_of(torch.tensor([[3, 4], [1, 3]]), 6).tolist()
    [-1, 0, -1, 0, 0, -1]
    """
    sparse, graphs = require("scipy.sparse"), require("scipy.sparse.csgraph")
    a, b = pairs.cpu().numpy().T
    matrix = sparse.coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(n, n))
    labels = graphs.connected_components(matrix, directed=False)[1]
    _, first, inverse, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    kept = np.flatnonzero(counts > 1)
    numbers = np.full(len(counts), -1, np.int64)
    numbers[kept[np.argsort(first[kept])]] = np.arange(len(kept))
    return torch.from_numpy(numbers[inverse.reshape(-1)]).to(pairs.device)


def _distinct(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first (U,) of each distinct row, and the copies (N - U,) with the first of their kind (N - U,)."""
    # Zero has two signs, and one is equal to the other.
    content = np.ascontiguousarray((rows + 0.0).cpu().numpy())
    _, first, inverse = np.unique(
        content.view(np.dtype((np.void, content.strides[0]))).reshape(-1), return_index=True, return_inverse=True
    )
    of = torch.from_numpy(first[inverse.reshape(-1)])
    every = torch.arange(len(rows))
    copies = every[of != every]
    return tuple(part.to(rows.device) for part in (every[of == every], copies, of[copies]))  # type: ignore[return-value]


def _near(rows: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """Squared distances (P,) up to a limit, and pairs (P, 2) of distinct rows."""
    n = len(rows)
    k = min(_FIRST, n - 1)
    if k < 1:
        return rows.new_empty(0), torch.empty(0, 2, dtype=torch.int64, device=rows.device)
    asked = torch.arange(n, device=rows.device)
    found = knn(rows, k)
    parts = []
    while True:
        values, others = found
        near = (values <= limit) & (others != asked[:, None])
        more = (values <= limit).all(1) if k < n - 1 else torch.zeros_like(asked, dtype=torch.bool)
        here, column = (near & ~more[:, None]).nonzero().unbind(1)
        parts.append((values[here, column], torch.stack([asked[here], others[here, column]], 1)))
        asked = asked[more]
        if not len(asked):
            break
        k = min(2 * k, n - 1)
        # One more than k: the row itself is among them.
        found = knn(rows, k + 1, query=rows[asked])
    distances, pairs = torch.cat([part[0] for part in parts]), torch.cat([part[1].sort(1).values for part in parts])
    # Each pair was found from both ends.
    keys = pairs[:, 0] * n + pairs[:, 1]
    order = keys.argsort(stable=True)
    fresh = torch.ones_like(order, dtype=torch.bool)
    fresh[1:] = keys[order][1:] != keys[order][:-1]
    return distances[order][fresh], pairs[order][fresh]
