"""How many clusters there are: gaps in the affinities of a tree of merges, checked on parts of the data."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from deepclust_ext import _checks as check
from deepclust_ext.evaluate._checks import as_array, as_features
from deepclust_ext.evaluate.scores import ari
from deepclust_ext.ops.affinity_graph import affinity_graph
from deepclust_ext.ops.agglomerate import agglomerate
from deepclust_ext.ops.cut import Agglomeration, cut

__all__ = ["Candidate", "ClusterCount", "count_clusters"]

# Affinities below this share of the largest are none: differences among them tell nothing.
FLOOR = 0.01
# In fewer dimensions lengths say as much as directions, and rows are not L2-normalised.
FEW = 8
# Members that a cluster has at least: of n rows one per cent, but no more than the neighbours of a row.
SHARE_OF_ROWS = 100


class Candidate(NamedTuple):
    """A number of clusters, and what speaks for it."""

    n_clusters: int
    gap: float
    """By how much the affinity falls, in units of e: the mean over the trees of all rows and of the parts."""
    stability: float
    """The mean adjusted Rand index between the clusters of all rows and those of the parts."""
    n_largest: int
    """Of how many of the trees the largest gap is here."""


class ClusterCount(NamedTuple):
    """What `count_clusters` returns."""

    n_clusters: int
    """That of the first candidate; 1 where there is none, as no affinity is below another."""
    n_trees: int
    """How many were grown: of all rows, and of each part."""
    candidates: list[Candidate]
    """The best first."""
    curve: list[tuple[int, float, float]]
    """(n, affinity, gap) from 2 to the most large clusters there are: the affinity, among all rows, of the merge that
    leaves fewer than n of them, and the mean gap."""


class _Tree(NamedTuple):
    """A tree of merges, and the affinity (most + 2,) of the last merge that leaves fewer than n large clusters."""

    tree: Agglomeration
    affinities: Tensor


def count_clusters(
    x: object,
    *,
    at_most: int = 50,
    k: int = 20,
    n_parts: int = 5,
    share: float = 0.8,
    max_rows: int = 10_000,
    n_candidates: int = 5,
    seed: int = 0,
) -> ClusterCount:
    r"""Say how many clusters rows have, with the numbers that are nearly as good.

    Rows are centred, L2-normalised (from 8 dimensions on) and merged by the affinities of a graph of neighbours
    (AC-GDL, see `deepclust_ext.agglomerate`) down to one cluster. Only merges of two large clusters count: of one row
    in a hundred, or of k rows if that is less. With :math:`A_n` the affinity of the merge after which fewer than n
    large ones are left, or that of a later merge where that is higher, and :math:`\epsilon` a hundredth of the largest,

    .. math:: g_n = \ln \frac{A_{n+1} + \epsilon}{A_n + \epsilon}

    is large where merging down to n clusters joins what belongs together, and a merge more does not. The same is done
    for random parts of the rows. The candidates are the numbers of the largest means of :math:`g_n` times the
    stability: the adjusted Rand index between the clusters of all rows and those of a part, on the part.

    Parameters
    ----------
    x : array or tensor, (N, d) float
        Rows: embeddings, or flattened images.
    at_most : int
        The largest number considered, 2 to 1000; the smallest is 2.
    k : int
        Neighbours of a row in the graph.
    n_parts : int
        Random parts of the rows.
    share : float
        Of the rows that a part has.
    max_rows : int
        Of more rows, so many are drawn.
    n_candidates : int
        How many candidates to return; fewer where there are no more gaps.
    seed : int
        Of the draws.

    Returns
    -------
    ClusterCount

    Raises
    ------
    ValueError
        If a parameter is out of range, or there are fewer than 10 finite rows.

    References
    ----------
    Zhang, Wang, Zhao and Tang, "Graph degree linkage: agglomerative clustering on a directed graph", ECCV 2012 (the
    affinity); Ben-Hur, Elisseeff and Guyon, "A stability based method for discovering structure in clustered data",
    PSB 2002.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> centers = 8 * torch.randn(6, 8, generator=generator)
    >>> x = centers.repeat(50, 1) + torch.randn(300, 8, generator=generator)
    >>> count_clusters(x).n_clusters
    6
    """
    name = "count_clusters"
    at_most = check.whole_number(name, "at_most", at_most, at_least=2, at_most=1000)
    k = check.whole_number(name, "k", k, at_least=1)
    n_parts = check.whole_number(name, "n_parts", n_parts, at_least=1)
    share = check.number(name, "share", share, above=0)
    max_rows = check.whole_number(name, "max_rows", max_rows, at_least=10)
    n_candidates = check.whole_number(name, "n_candidates", n_candidates, at_least=1)
    seed = check.whole_number(name, "seed", seed, at_least=0)
    if share >= 1:
        raise ValueError(f"{name}: 'share' must be below 1, got {share}")
    generator, array = torch.Generator().manual_seed(seed), as_array(x)
    # Before anything is converted: a mapped file is not read whole.
    if array.ndim == 2 and len(array) > max_rows:
        array = array[torch.randperm(len(array), generator=generator)[:max_rows].sort().values.numpy()]
    rows = torch.from_numpy(as_features(name, "x", array)).float()
    n = len(rows)
    if n < 10:
        raise ValueError(f"{name}: 'x' must have at least 10 rows, got {n}")
    size = max(5, math.ceil(share * n))
    parts = [torch.randperm(n, generator=generator)[:size].sort().values for _ in range(n_parts)]
    rows = rows - rows.double().mean(0).float()
    if rows.shape[1] >= FEW:
        rows = torch.nn.functional.normalize(rows)
    whole, *others = (_tree(part, k, at_most) for part in (rows, *(rows[index] for index in parts)))
    gaps = torch.stack([_gaps(found.affinities) for found in (whole, *others)])
    mean = gaps.mean(0)
    largest = gaps.argmax(1) + 2
    candidates = []
    # Twice as many as are returned: stability may change their order.
    for n_clusters in (mean.argsort(descending=True, stable=True)[: 2 * n_candidates] + 2).tolist():
        gap = float(mean[n_clusters - 2])
        if gap > 0:
            labels = _labels(whole.tree, rows, n_clusters, k)
            agreements = [
                ari(labels[index].numpy(), _labels(tree, rows[index], n_clusters, k).numpy())
                for (tree, _), index in zip(others, parts, strict=True)
            ]
            stability = float(np.mean(agreements))
            candidates.append(Candidate(n_clusters, gap, stability, int((largest == n_clusters).sum())))
    candidates.sort(key=lambda each: -each.gap * max(each.stability, 0.0))
    curve = [
        (n, affinity, float(mean[n - 2]))
        for n, affinity in enumerate(whole.affinities[: at_most + 1].tolist())
        if math.isfinite(affinity)
    ]
    best = candidates[0].n_clusters if candidates else 1
    return ClusterCount(best, len(gaps), candidates[:n_candidates], curve)


def _large(n: int, k: int) -> int:
    """Members of a large cluster of n rows."""
    return max(2, min(k, n // SHARE_OF_ROWS))


def _tree(rows: Tensor, k: int, at_most: int) -> _Tree:
    """Merge rows (n, d) down to one cluster."""
    tree = agglomerate(affinity_graph(rows, min(k, len(rows) - 1)), 1, lam=0.0, x=rows)
    sizes, least = torch.bincount(tree.initial_labels).tolist(), _large(len(rows), k)
    count = sum(size >= least for size in sizes)
    affinities = torch.full((at_most + 2,), math.nan, dtype=torch.float64)
    highest, lowest, before = count, math.inf, math.nan
    for (a, b), affinity in zip(tree.children.tolist(), tree.affinities.tolist(), strict=True):
        sizes.append(sizes[a] + sizes[b])
        if sizes[a] >= least and sizes[b] >= least:
            if count < len(affinities):
                affinities[count] = affinity
            before = lowest if count == highest else before
            count -= 1
        elif sizes[-1] >= least:
            lowest = min(lowest, affinity)
            count += max(sizes[a], sizes[b]) < least
            if count > highest:
                highest, before = count, math.nan
    if highest + 1 < len(affinities) and math.isfinite(before):
        # Of the most large clusters there are: the merges that made them stand for one of more.
        affinities[highest + 1] = before
    return _Tree(tree, affinities)


def _gaps(affinities: Tensor) -> Tensor:
    """The gaps (at_most - 1,) of 2 to at_most clusters; 0 where there are no so many."""
    # Of two merges in the other order, the later one says what the earlier one would have cost.
    known = affinities[2:]
    known = torch.where(known.isnan(), torch.nan, known.nan_to_num(0.0).cummax(0).values)
    floor = FLOOR * float(known.nan_to_num(0.0).max())
    if floor == 0:
        return torch.zeros(len(known) - 1, dtype=torch.float64)
    logs = (known + floor).log()
    return (logs[1:] - logs[:-1]).nan_to_num(0.0)


def _labels(tree: Agglomeration, rows: Tensor, n_clusters: int, k: int) -> Tensor:
    """The cut of a tree into so many large clusters."""
    n_clusters = min(n_clusters, len(tree.children) + 1)
    return cut(tree, n_clusters, min_size=_large(len(rows), k), x=rows).labels
