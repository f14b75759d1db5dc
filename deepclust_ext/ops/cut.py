"""Clusters from a tree of merges: the plain cut, and one that heeds sizes. In plain torch on the CPU."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from deepclust_ext import _checks as check
from deepclust_ext.ops._common import accumulator_dtype, all_finite, check_floating
from deepclust_ext.ops.kmeans_assign import kmeans_assign

__all__ = ["Agglomeration", "RowBlocks", "centroids_of", "check_rows", "cut", "cut_after"]

SMALL = ("nearest", "noise")
_CHUNK = 2**16


class Agglomeration(NamedTuple):
    """Clusters, and the tree of merges that they are cut from."""

    labels: Tensor
    """(n,), int64: 0 to n_clusters - 1, numbered by first member; -1 for noise."""
    n_clusters: int
    """How many there are."""
    children: Tensor
    """(M, 2), int64: the two nodes that the t-th merge makes node m + t of, the lower first; 0 to m - 1 are the
    clusters to begin with, as in scipy's linkage matrices."""
    affinities: Tensor
    """(M,), float64: of each pair when it was merged; 0 where the nearest centroids were. Not monotone."""
    initial_labels: Tensor
    """(n,), int64: the clusters to begin with, 0 to m - 1."""


def cut(
    result: Agglomeration,
    n_clusters: int,
    *,
    min_size: int | None = None,
    small: str = "nearest",
    x: Tensor | None = None,
) -> Agglomeration:
    """Cut a tree of merges at another number of clusters, without merging again.

    With `min_size`, tiny clusters without an affinity hold none of the places: beginning at the plain cut, merges are
    undone while at most `n_clusters` clusters have `min_size` members. Of the cuts seen, one with the most such
    clusters is taken, the one with the fewest merges where several are. Each smaller cluster then joins the nearest
    centroid of a large one as a whole, or is noise. Where no cluster is large enough, all points are one cluster, or
    all are noise.

    Parameters
    ----------
    result : Agglomeration
        What `agglomerate` returned, or another cut of it.
    n_clusters : int
        Between the number of clusters that merging ended with and the number that it began with.
    min_size : int, optional
        Members that every cluster is to have at least; between 1 and the number of points. About
        min(20, n / (10 n_clusters)) suits most data.
    small : {"nearest", "noise"}, default "nearest"
        Join smaller clusters to the nearest large one, or label their points -1.
    x : Tensor, shape (n, d), floating point, optional
        The points; needed for "nearest".

    Returns
    -------
    Agglomeration
        `labels` and `n_clusters` of the cut, which is fewer than asked for where `min_size` allows no more; the tree is
        that of `result`.

    Raises
    ------
    TypeError
        An argument is of another type.
    ValueError
        The count is not in the tree, another number or option is out of range, or `x` is missing, not of n rows or not
        finite.

    Examples
    --------
    >>> import torch
    >>> from deepclust_ext import affinity_graph, agglomerate, cut
    >>> x = torch.tensor([[0.0], [0.1], [0.2], [0.3], [0.9], [1.0]])
    >>> tree = agglomerate(affinity_graph(x, 3), 1, x=x)
    >>> cut(tree, 2).labels.tolist()
    [0, 0, 0, 0, 1, 1]
    >>> cut(tree, 2, min_size=3, small="noise").labels.tolist()
    [0, 0, 0, 0, -1, -1]
    """
    if not isinstance(result, Agglomeration):
        raise TypeError(f"cut: 'result' must be an Agglomeration, got {type(result).__name__}")
    n, first = len(result.initial_labels), _count(result.initial_labels)
    last = first - len(result.children)
    n_clusters = check.whole_number("cut", "n_clusters", n_clusters)
    if not last <= n_clusters <= first:
        raise ValueError(
            f"cut: 'n_clusters' must be in the tree, which has {last} to {first} clusters, got {n_clusters}"
        )
    check.choice("cut", "small", small, SMALL)
    rows = None if x is None else check_rows("cut", x, n)
    if min_size is not None:
        min_size = check.whole_number("cut", "min_size", min_size, at_least=1, at_most=n)
        if rows is None and small == "nearest":
            raise ValueError("cut: 'x' must be given for min_size with small='nearest'; or take small='noise'")
    return cut_after(result, first - n_clusters, n_clusters, min_size, small, rows)


def cut_after(
    tree: Agglomeration, merges: int, n_clusters: int, min_size: int | None, small: str, x: Tensor | None
) -> Agglomeration:
    """The cut after so many merges, or one before it with at most `n_clusters` clusters of `min_size`; checked."""
    device = tree.initial_labels.device
    start, children = tree.initial_labels.cpu(), tree.children.cpu()
    if min_size is None:
        labels = _numbered(_nodes(children, _count(start), merges)[start])
        return tree._replace(labels=labels.to(device), n_clusters=_count(labels))
    merges = _undone(children.tolist(), torch.bincount(start).tolist(), merges, n_clusters, min_size)
    labels = _numbered(_nodes(children, _count(start), merges)[start])
    large = torch.bincount(labels) >= min_size
    if small == "noise":
        joined = torch.where(large, large.cumsum(0) - 1, -1)
    elif not large.any():
        joined = torch.zeros_like(large, dtype=torch.int64)
    else:
        joined = torch.arange(len(large), device=large.device)
        if not large.all():
            assert x is not None
            centroids = centroids_of(x.cpu(), labels, len(large))
            nearest = kmeans_assign(centroids[~large], centroids[large]).labels
            joined[~large] = large.nonzero().flatten()[nearest]
    labels = joined[labels]
    if small == "nearest":
        labels = _numbered(labels)
    return tree._replace(labels=labels.to(device), n_clusters=_count(labels))


def check_rows(op: str, x: object, n: int) -> Tensor:
    """`x` as points (n, d) in float32 or float64, or an error."""
    rows = check_floating(op, "x", x).detach()
    if rows.dim() != 2 or rows.shape[0] != n or rows.shape[1] < 1:
        raise ValueError(f"{op}: 'x' must have shape ({n}, d) with d >= 1, got {tuple(rows.shape)}")
    if not all_finite(rows):
        raise ValueError(f"{op}: 'x' must be finite, got NaN or infinity")
    return rows.to(accumulator_dtype(rows.dtype))


class RowBlocks(Protocol):
    """What a matrix (N, d) can do that is read a block of rows after another: a tensor, or rows that are made so."""

    @property
    def shape(self) -> Sequence[int]:
        """(N, d)."""

    def split(self, split_size: int, /) -> Iterable[Tensor]:
        """Blocks of so many rows, in order."""


def centroids_of(x: RowBlocks, labels: Tensor, n_clusters: int) -> Tensor:
    """Means (n_clusters, d) in float64 of the rows with each label, added up in their order; NaN where none has it."""
    sums = labels.new_zeros((n_clusters, x.shape[1]), dtype=torch.float64)
    for rows, of in zip(x.split(_CHUNK), labels.split(_CHUNK), strict=True):
        sums.index_add_(0, of, rows.double())
    return sums / torch.bincount(labels, minlength=n_clusters)[:, None]


def smallest_cluster(n: int, n_clusters: int, n_neighbors: int = 20) -> int:
    """The least size that counts where none is given: n_neighbors, or a tenth of n / n_clusters if that is less."""
    return max(1, min(n_neighbors, n // (10 * n_clusters)))


def _count(labels: Tensor) -> int:
    return int(labels.max()) + 1 if len(labels) else 0


def _nodes(children: Tensor, m: int, merges: int) -> Tensor:
    """The node (m,) that each first cluster is part of after so many merges."""
    parent = torch.arange(m + merges, device=children.device)
    parent[children[:merges].flatten()] = torch.arange(m, m + merges, device=children.device).repeat_interleave(2)
    while True:  # twice as far up each time
        above = parent[parent]
        if torch.equal(above, parent):
            return parent[:m]
        parent = above


def _numbered(labels: Tensor) -> Tensor:
    """The same clusters, 0 to K - 1 by their first members."""
    names, labels = torch.unique(labels, return_inverse=True)
    places = torch.arange(len(labels), device=labels.device)
    first = torch.full_like(names, len(labels)).scatter_reduce_(0, labels, places, "amin")
    number = torch.empty_like(first)
    number[first.argsort()] = places[: len(first)]
    return number[labels]


def _undone(children: list[list[int]], sizes: list[int], merges: int, n_clusters: int, min_size: int) -> int:
    """How many merges stay of `merges`, so that small clusters take no places; see `cut`."""
    large = [sum(size >= min_size for size in sizes)]  # clusters of that size after each merge
    for a, b in children[:merges]:
        sizes.append(sizes[a] + sizes[b])
        large.append(large[-1] + (sizes[-1] >= min_size) - (sizes[a] >= min_size) - (sizes[b] >= min_size))
    best = now = merges
    while now > 0 and large[now - 1] <= n_clusters:
        now -= 1
        if large[now] >= large[best]:
            best = now
    return best
