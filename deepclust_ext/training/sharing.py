"""Clustering and neighbours of all images, of which each process that trains does its share, with one process's bits.

Every process holds all rows, and gets all of the result. On a GPU, and where there is little to do, each does all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

from deepclust_ext.ops.affinity_graph import AffinityGraph, affinity_graph
from deepclust_ext.ops.bank_nll_entropy import bank_entropy
from deepclust_ext.ops.kmeans import KMeansResult, kmeans
from deepclust_ext.ops.knn import KNN, knn
from deepclust_ext.training.team import Team, current, lost

__all__ = ["shared_affinity_graph", "shared_entropy", "shared_kmeans", "shared_knn"]

_T = TypeVar("_T")

# Products of two numbers from which on a share is worth what it sends.
_WORTH = 1 << 27


def shared_kmeans(rows: Tensor, n_clusters: int, **options: Any) -> KMeansResult:
    """`kmeans` of rows (N, d)."""
    team = _team(rows, n_clusters)
    if team.size == 1:
        return kmeans(rows, n_clusters, **options)
    found = _of_group(team, lambda group: kmeans(rows[team.share(len(rows))], n_clusters, **options, group=group))
    return found._replace(labels=team.join(found.labels, team.bounds(len(rows))))


def shared_knn(rows: Tensor, k: int, *, metric: str = "euclidean") -> KNN:
    """`knn` of each of the rows (N, d)."""
    team = _team(rows, len(rows))
    if team.size == 1:
        return knn(rows, k, metric=metric)
    found = _of_group(team, lambda group: knn(rows[team.share(len(rows))], k, metric=metric, group=group))
    return KNN(*(team.join(part, team.bounds(len(rows))) for part in found))


def shared_affinity_graph(rows: Tensor, k: int, *, a: float = 1.0) -> AffinityGraph:
    """`affinity_graph` of rows (N, d)."""
    team = _team(rows, len(rows))
    if team.size == 1:
        return affinity_graph(rows, k, a=a)
    found = _of_group(team, lambda group: affinity_graph(rows[team.share(len(rows))], k, a=a, group=group))
    indices, weights = (team.join(part, team.bounds(len(rows))) for part in (found.indices, found.weights))
    return AffinityGraph(indices, weights, found.sigma2)


def shared_entropy(bank: Tensor, exclude: Tensor | None = None, *, temperature: float) -> Tensor:
    """`bank_entropy` (N,) of each row of a bank (N, d) that every process holds."""
    n, team = len(bank), _team(bank, len(bank))
    if team.size == 1:
        return bank_entropy(bank, bank, exclude, temperature=temperature)
    # One row at least, to know what results look like.
    own = team.share(n) if team.share(n) != slice(0, 0) else slice(0, 1)
    left_out = None if exclude is None else exclude[own]
    return team.join(bank_entropy(bank[own], bank, left_out, temperature=temperature), team.bounds(n))


def _team(rows: Tensor, per_row: int) -> Team:
    """The processes that share work of N x d x `per_row` products."""
    team = current()
    return team if rows.device.type == "cpu" and rows.numel() * per_row >= _WORTH else Team()


def _of_group(team: Team, work: Callable[[torch.distributed.ProcessGroup], _T]) -> _T:
    """What an op finds over the processes."""
    with lost():
        assert team.ranks is not None
        assert team.ranks.group is not None
        return work(team.ranks.group)
