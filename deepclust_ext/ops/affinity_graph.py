"""The graph of nearest neighbours with affinities as weights: the public function, and the fake kernel of its op."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from deepclust_ext import _checks as check
from deepclust_ext.distributed import Ranks, kind_of, ranks_of
from deepclust_ext.ops import _raw
from deepclust_ext.ops._common import check_floating, checked_by_value, refuse_capture, refuse_vmap
from deepclust_ext.ops._grouped_knn import check_finite, in_blocks, knn_of_all, rows_within

__all__ = ["AffinityGraph", "affinity_graph"]

# Bytes of a weight, at most.
_WEIGHT = 8


class AffinityGraph(NamedTuple):
    """A directed graph of n points with k edges each."""

    indices: Tensor
    """(n, k), int64: the points that each point's edges lead to, the nearest first."""
    weights: Tensor
    """(n, k): affinities of the pairs, between 0 and 1."""
    sigma2: Tensor
    """(): the scale of the squared distances; 0 where all neighbours are equal."""


def affinity_graph(
    x: Tensor, k: int = 20, *, a: float = 1.0, group: ProcessGroup | None = None, max_memory: int | None = None
) -> AffinityGraph:
    r"""Connect every point with its k nearest neighbours by edges that weigh what they have in common.

    .. math:: W_{ij} = \exp(-\lVert x_i - x_j \rVert^2 / \sigma^2), \quad
              \sigma^2 = \frac{a}{n k} \sum_i \sum_{j \in N_i} \lVert x_i - x_j \rVert^2

    N_i are the k nearest neighbours of i without i itself (left out by its index, so that copies of a point are its
    neighbours); all other weights are 0. Where all neighbours are equal, sigma^2 is 0 and the weights are 1. The mean
    is summed in index order: the same bits for any number of threads. Levels of DEEPCLUST_SIMD agree to rounding.

    What the points are decides more than any parameter: images are best centred per pixel, then L2-normalised.

    Parameters
    ----------
    x : Tensor, shape (n, d), float16, bfloat16, float32 or float64
        The points, in any strides.
    k : int, default 20
        Neighbours a point, between 1 and n - 1.
    a : float, default 1.0
        Above 0: how far affinities reach.
    group : torch.distributed.ProcessGroup, optional
        Ranks that hold rows of one `x`, as many each as they like. Each gets the edges of its own points, which lead to
        points of all ranks, counted in rank order: the same bits as those rows of one rank on all of them. The search
        is that of `knn`; for the mean every rank then holds the distances of all edges, n x k.
    max_memory : int, optional
        The most bytes to take beside `x`, the edges included; as in `knn`, with the same bits. The distances of other
        ranks come on top.

    Returns
    -------
    AffinityGraph
        `indices` and `weights` (n, k), `sigma2` (); in float32 (float64 for float64). No gradient passes.

    Raises
    ------
    TypeError
        `x` is not a floating-point tensor, `k` or `a` not a number.
    ValueError
        A shape or number is out of range, `x` holds NaN or infinity, or the squared distances leave the range of
        floats; or arguments differ between the ranks of a group, and what one rank refuses is an error on all.
    RuntimeError
        A CUDA graph is being recorded.

    References
    ----------
    Yang, Parikh and Batra, "Joint unsupervised learning of deep representations and image clusters" (JULE), CVPR 2016,
    equation 1; Zhang, Wang, Zhao and Tang, "Graph degree linkage: agglomerative clustering on a directed graph", ECCV
    2012.

    Examples
    --------
    >>> import torch
    >>> from deepclust_ext import affinity_graph
    >>> graph = affinity_graph(torch.tensor([[0.0], [1.0], [3.0]]), 1)
    >>> graph.indices.flatten().tolist(), graph.sigma2.item()
    ([1, 0, 1], 2.0)
    >>> [round(weight, 3) for weight in graph.weights.flatten().tolist()]
    [0.607, 0.607, 0.135]
    """
    refuse_vmap("affinity_graph", "call it for each matrix", x)
    if group is not None or max_memory is not None:
        # One process that reads blocks does as a group of one does.
        ranks = Ranks("affinity_graph", None, 0, 1) if group is None else ranks_of("affinity_graph", group)

        def prepare() -> tuple[tuple[Tensor, int, float], dict[str, object], tuple[int, int]]:
            own = _check(x, k, a)
            step = rows_within("affinity_graph", own[0], None, own[1], max_memory, more=_WEIGHT)
            for begin, block in in_blocks(own[0], step):
                check_finite("affinity_graph", "x", block, begin)
            return own, {"x": kind_of(own[0], 0), "k": own[1], "a": own[2]}, (len(own[0]), step or 0)

        (points, k, a), counts = ranks.agree(prepare)
        rows = [count for count, _ in counts]
        _check_points(sum(rows), points.shape[1], k)
        steps = [step or None for _, step in counts]
        distances, indices = knn_of_all(ranks, points, k, None, "euclidean", rows, steps)
        if ranks.size == 1:
            return AffinityGraph(indices, *_weights(distances, a, points))
        # The mean is a sum in the order of all points.
        begin = sum(rows[: ranks.rank])
        weights, sigma2 = _weights(torch.cat(ranks.gather(distances, rows)), a, points)
        return AffinityGraph(indices, weights[begin : begin + len(points)].clone(), sigma2)
    points, k, a = _check(x, k, a)
    _check_points(points.shape[0], points.shape[1], k)
    refuse_capture("affinity_graph", points)
    distances, indices = checked_by_value("affinity_graph", _raw.knn, points, None, k, "euclidean")
    return AffinityGraph(indices, *_weights(distances, a, points))


def _check(x: Tensor, k: int, a: float) -> tuple[Tensor, int, float]:
    points = check_floating("affinity_graph", "x", x).detach()
    if points.dim() != 2:
        raise ValueError(
            f"affinity_graph: 'x' must have shape (n, d) with n >= 2 and d >= 1, got {tuple(points.shape)}"
        )
    k = check.whole_number("affinity_graph", "k", k, at_least=1)
    return points, k, check.number("affinity_graph", "a", a, above=0)


def _check_points(n: int, d: int, k: int) -> None:
    if n < 2 or d < 1:
        raise ValueError(f"affinity_graph: 'x' must have shape (n, d) with n >= 2 and d >= 1, got {(n, d)}")
    check.whole_number("affinity_graph", "k", k, at_least=1, at_most=n - 1)


def _weights(distances: Tensor, a: float, points: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and sigma^2 of the distances of all edges."""
    try:
        return _raw.affinity_weights(distances, a)
    except RuntimeError as error:
        if "'squared_distances' must be" not in str(error):
            raise
        # Not of absolute values: a copy may be more than memory holds.
        largest = max(float(points.max()), -float(points.min())) if len(points) else 0.0
        raise ValueError(
            f"affinity_graph: 'x' must have squared distances that {distances.dtype} can sum, got values up to "
            f"{largest:.3g}; divide it by a constant"
        ) from None


@torch.library.register_fake("deepclust::affinity_weights")
def _(squared_distances: Tensor, a: float) -> tuple[Tensor, Tensor]:
    return squared_distances.new_empty(squared_distances.shape), squared_distances.new_empty(())
