"""Greedy merging of clusters by JULE's criterion: the public function and its fake kernel. The loop runs on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from deepclust_ext import _checks as check
from deepclust_ext.ops import _raw
from deepclust_ext.ops._common import check_floating, checked_by_value, refuse_capture, refuse_vmap
from deepclust_ext.ops.affinity_graph import AffinityGraph
from deepclust_ext.ops.cut import SMALL, Agglomeration, check_rows, cut_after
from deepclust_ext.ops.initial_clusters import check_indices

__all__ = ["agglomerate"]

_UPDATE = ("exact", "slide", "sum")
_EXHAUSTED = ("nearest_centroid", "stop")


def agglomerate(
    graph: AffinityGraph,
    n_clusters: int,
    *,
    labels: Tensor | None = None,
    kc: int = 5,
    lam: float = 1.0,
    update: str = "exact",
    exhausted: str | None = None,
    x: Tensor | None = None,
    min_size: int | None = None,
    small: str = "nearest",
) -> Agglomeration:
    r"""Merge clusters of a graph, two at a time, until `n_clusters` are left.

    .. math:: A(a, c) = \frac{U_{ac}}{|a|^2} + \frac{U_{ca}}{|c|^2}, \quad
              U_{ac} = \sum_{i \in c} \Big(\sum_{j \in a} W_{ji}\Big) \Big(\sum_{j \in a} W_{ij}\Big)

    .. math:: S_i = A_{i1} + \frac{\lambda}{k_c - 1} \sum_{k=2}^{k_c} (A_{i1} - A_{ik})

    A_i1 >= A_i2 >= .. are the affinities of cluster i with all others, and 0 where there are none left. The cluster of
    the highest S joins the one nearest to it; `lam=0` is agglomerative clustering by graph degree linkage (AC-GDL).
    Ties go to the smallest i, then to the smallest j, where a merged cluster counts as the lower of its two. Weights
    are rounded to multiples of 2^-40 (coarser ones where n k is above 2^22, 2^-37 for 2^25; a positive weight stays
    positive), and all sums are of whole numbers: the result is that of computing every affinity anew after every merge,
    and has the same bits on every run and at every level of DEEPCLUST_SIMD.

    Time grows with the number of edges; memory is 30 to 100 bytes an edge. The loop is sequential and runs on the CPU;
    tensors on a GPU are copied there and the results back.

    Parameters
    ----------
    graph : AffinityGraph
        Of `affinity_graph`, or indices (n, k) and weights (n, k) between 0 and 1 of your own. Edges within a point and
        repeated neighbours are allowed.
    n_clusters : int
        At least 1. Where there are no more clusters than that, nothing is merged.
    labels : Tensor, shape (n,), of whole numbers, optional
        Start from these clusters instead of `initial_clusters(graph.indices)`; in order of their labels they are the
        clusters 0 to m - 1 of the tree.
    kc : int, default 5
        Neighbours in the score, 1 to 1000; 1 drops the local term.
    lam : float, default 1.0
        Its weight, at least 0.
    update : {"exact", "slide", "sum"}, default "exact"
        How U towards a merged cluster is formed: as defined; so that A(c -> a + b) is the mean of A(c -> a) and
        A(c -> b) by size; or as U_ac + U_bc, which leaves out what vertices share with both.
    exhausted : {"nearest_centroid", "stop"}, optional
        What follows when no two clusters have an affinity: the two with the nearest centroids are merged, which needs
        `x`, or merging stops and more clusters than asked for are returned. By default the first where there is an `x`.
    x : Tensor, shape (n, d), floating point, optional
        The points, for centroids.
    min_size : int, optional
        Cut the tree so that no cluster has fewer members; see `cut`.
    small : {"nearest", "noise"}, default "nearest"
        With `min_size`: smaller clusters join the nearest large one (needs `x`), or are labelled -1.

    Returns
    -------
    Agglomeration
        `labels` (n,), `n_clusters`, and the tree: `children` (M, 2), `affinities` (M,), `initial_labels` (n,). Look at
        `n_clusters`: a stop leaves more than asked for, `min_size` may leave fewer.

    Raises
    ------
    TypeError
        An argument is of another type.
    ValueError
        A shape, number or option is out of range, weights are not between 0 and 1, or `x` is missing or not finite.
    RuntimeError
        A CUDA graph is being recorded.

    References
    ----------
    Yang, Parikh and Batra, "Joint unsupervised learning of deep representations and image clusters" (JULE), CVPR 2016,
    section 3.2 and equation 6; Zhang, Wang, Zhao and Tang, "Graph degree linkage", ECCV 2012.

    Examples
    --------
    >>> import torch
    >>> from deepclust_ext import affinity_graph, agglomerate
    >>> x = torch.tensor([[0.0], [0.1], [0.3], [0.4], [5.0], [5.1]])
    >>> result = agglomerate(affinity_graph(x, 3), 2)
    >>> result.labels.tolist(), result.children.tolist()
    ([0, 0, 0, 0, 1, 1], [[0, 1]])
    """
    indices, weights = _check_graph(graph)
    n_clusters = check.whole_number("agglomerate", "n_clusters", n_clusters, at_least=1)
    kc = check.whole_number("agglomerate", "kc", kc, at_least=1, at_most=1000)
    lam = check.number("agglomerate", "lam", lam, at_least=0)
    check.choice("agglomerate", "update", update, _UPDATE)
    if exhausted is not None:
        check.choice("agglomerate", "exhausted", exhausted, _EXHAUSTED)
    check.choice("agglomerate", "small", small, SMALL)
    rows = None if x is None else check_rows("agglomerate", x, len(indices))
    if rows is None and exhausted == "nearest_centroid":
        raise ValueError("agglomerate: 'x' must be given for exhausted='nearest_centroid'; or take exhausted='stop'")
    if min_size is not None:
        min_size = check.whole_number("agglomerate", "min_size", min_size, at_least=1, at_most=len(indices))
        if rows is None and small == "nearest":
            raise ValueError("agglomerate: 'x' must be given for min_size with small='nearest'; or take small='noise'")
    refuse_capture("agglomerate", indices)
    start = _start(labels, indices)
    n_initial = int(start.max()) + 1 if len(start) else 0
    given = (indices.cpu(), weights.cpu(), start.cpu(), n_initial, n_clusters, kc, lam, _UPDATE.index(update))
    points = None if rows is None or exhausted == "stop" else rows.cpu()
    children, affinities, n_merges = checked_by_value(
        "agglomerate", _raw.agglomerate, *given, points, weights="graph", indices="graph"
    )
    merges = int(n_merges)
    children, affinities = (t[:merges].to(start.device) for t in (children, affinities))
    tree = Agglomeration(start, n_initial, children, affinities, start)
    return cut_after(tree, merges, min(n_clusters, n_initial), min_size, small, rows)


def _check_graph(graph: object) -> tuple[Tensor, Tensor]:
    if not isinstance(graph, AffinityGraph):
        raise TypeError(f"agglomerate: 'graph' must be an AffinityGraph, got {type(graph).__name__}")
    for each in graph[:2]:
        refuse_vmap("agglomerate", "call it for each graph", each)
    indices = check_indices("agglomerate", "graph", graph.indices)
    weights = check_floating("agglomerate", "graph", graph.weights).detach()
    if weights.shape != indices.shape or weights.device != indices.device:
        raise ValueError(
            f"agglomerate: 'graph' must have weights of the indices' shape {tuple(indices.shape)} and device "
            f"{indices.device}, got {tuple(weights.shape)} on {weights.device}"
        )
    return indices, weights


def _start(labels: object, indices: Tensor) -> Tensor:
    """Labels 0 to m - 1 of the first clusters, on the graph's device."""
    if labels is None:
        return checked_by_value("agglomerate", _raw.initial_clusters, indices, indices="graph")
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.is_complex():
        got = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"agglomerate: 'labels' must be a tensor of whole numbers, got {got}")
    if labels.shape != indices.shape[:1]:
        raise ValueError(
            f"agglomerate: 'labels' must have one entry a point, shape ({len(indices)},), got {tuple(labels.shape)}"
        )
    if len(labels) and int(labels.min()) < 0:
        raise ValueError(f"agglomerate: 'labels' must be at least 0, got {int(labels.min())}; drop points without one")
    found: Tensor = torch.unique(labels.to(indices.device, torch.int64), return_inverse=True)[1]
    return found


@torch.library.register_fake("deepclust::agglomerate")
def _(
    indices: Tensor,
    weights: Tensor,
    labels: Tensor,
    n_initial: int,
    n_clusters: int,
    kc: int,
    lam: float,
    update: int,
    x: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    most = torch.sym_max(n_initial - 1, 0)
    return (
        indices.new_empty((most, 2)),
        indices.new_empty((most,), dtype=torch.float64),
        indices.new_empty(()),
    )
