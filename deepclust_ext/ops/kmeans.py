"""k-means: the public function, its starts, and the fake kernels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from deepclust_ext.distributed import Ranks, ranks_of
from deepclust_ext.ops._common import accumulator_dtype, refuse_capture, refuse_vmap
from deepclust_ext.ops._kmeans import check_range, lower, random_rows, scaled_weights, settled, unit_rows
from deepclust_ext.ops._kmeans_arguments import check_count, check_inputs, options_of
from deepclust_ext.ops._kmeans_of_ranks import kmeans_of_ranks

__all__ = ["KMeansIteration", "KMeansResult", "kmeans"]


class KMeansIteration(NamedTuple):
    """One iteration, as the assignment found it; tensors of x's leading dimensions (no dimension for one matrix)."""

    objective: Tensor
    """float64: weighted sum of squared distances to the centroids that the assignment used, from the clusters' sums:
    right to about 1e-13 of that of a single cluster. `inertia` has all its digits."""
    moved: Tensor
    """float64: share of points that changed cluster; 1 at first, 0 once a matrix of a batch has settled."""
    empty: Tensor
    """int64: clusters without a member, or with points of weight 0 alone."""
    imbalance: Tensor
    """float64: K sum W_k^2 / W^2, 1 for clusters of equal weight and K for one that holds everything."""


class KMeansResult(NamedTuple):
    """What `kmeans` returns."""

    centroids: Tensor
    """(..., K, d)."""
    labels: Tensor
    """(..., N), int64: the nearest of these centroids, the lowest where several are. A cluster may be empty."""
    inertia: Tensor
    """(...): weighted sum of squared distances to them."""
    n_iter: Tensor
    """(...), int64: updates made."""
    history: list[KMeansIteration]
    """One record an iteration, of the start that was kept."""
    n_empty: Tensor
    """(...), int64: empty clusters met, over all iterations."""


def kmeans(
    x: Tensor,
    n_clusters: int,
    *,
    init: str | Tensor = "k-means++",
    max_iter: int = 20,
    tol: float = 0.0,
    n_init: int = 1,
    empty: str = "split",
    spherical: bool = False,
    sample_weight: Tensor | None = None,
    seed: int = 0,
    group: ProcessGroup | None = None,
    max_memory: int | None = None,
) -> KMeansResult:
    r"""Cluster points by k-means: exact Lloyd iterations.

    .. math:: \min_{c, a} \sum_i w_i \lVert x_i - c_{a_i} \rVert^2

    Alternates the nearest centroid of every point (ties to the lowest) with the weighted mean of every cluster, for at
    most `max_iter` updates, and ends with an assignment to the last centroids. Nothing is subsampled and no N x K
    matrix exists. Sums are exact integers and counts are int64, so that neither the number of points nor of threads
    shows in the result. Levels of DEEPCLUST_SIMD agree to rounding, which may send a point that is nearly tied
    another way. Not differentiable: the results are detached.

    Parameters
    ----------
    x : Tensor, shape (..., N, d), float16, bfloat16, float32 or float64
        Points, in any strides; every matrix of the leading dimensions is clustered on its own. Computed in float32
        (float64 for float64).
    n_clusters : int
        K, between 1 and N.
    init : {"k-means++", "random"} or Tensor of shape (..., K, d), default "k-means++"
        The starting centroids. "k-means++" draws them one after another with probability proportional to weight times
        squared distance from those before (plain, not greedy); "random" draws distinct points, by weight.
    max_iter : int, default 20
        The most updates of the centroids. Memory for records grows with the updates made, not with this bound.
    tol : float, default 0.0
        Stop when no centroid's squared step is longer. 0 stops when none moves.
    n_init : int, default 1
        Starts, of which the one with the lowest inertia counts.
    empty : {"split", "farthest", "keep"}, default "split"
        What becomes of a cluster without members. "split": it takes over the farthest member of the largest cluster
        ("farthest" where that lies on its centroid). "farthest": the point farthest from its centroid, among clusters
        of two members or more. "keep": its centroid stays. Where every point lies on its centroid, as with fewer
        different points than clusters, it stays as well.
    spherical : bool, default False
        Bring rows of `x` and centroids to unit length: clusters by cosine. A zero row stays zero.
    sample_weight : Tensor, shape (..., N), floating-point, optional
        Weights w of the points, at least 0 and below 1e300, one above 0 in every matrix; 1 where none are given. Their
        scale does not matter but for `inertia` and `objective`. A point of weight 0 gets a label and is no member of a
        cluster. Weights count to 2^-50 of the largest (2^-45 at 60,000 points).
    seed : int, default 0
        Seeds generators of their own; torch's global one is not touched.
    group : torch.distributed.ProcessGroup, optional
        Ranks that hold rows of one `x` (and their weights), as many each as they like. `labels` are those of a rank's
        own rows; everything else is the same on every rank. On CPUs all has the bits of one rank on all rows, whatever
        `init` and `empty`, but for `objective`, which agrees to about 1e-13 of that of a single cluster. On GPUs
        results do not depend on the number of ranks, and agree with a call without a group to rounding. An iteration
        sends K (d + 2) integers; k-means++ sends its candidates and 8 bytes per 1,024 rows for each pass.
    max_memory : int, optional
        The most bytes to take beside `x`, which may then be larger than memory, as a tensor of a mapped file is: its
        rows are read and copied a block after another. For one matrix (N, d) on the CPU. Results are those without it,
        but for `objective`, as with a group, whose ranks may each have a bound of their own. Every start reads all rows
        a few times, once more for each iteration, and at least log2 K times for k-means++.

    Returns
    -------
    KMeansResult
        `centroids` (..., K, d), `labels` (..., N), `inertia` and `n_iter` (...), `history`, `n_empty` (...).

    Raises
    ------
    TypeError
        `x` or `init` is not a floating-point tensor, an option not of its type.
    ValueError
        K is not between 1 and N, shapes do not fit together, an option is unknown or out of range, `x` or `init`
        holds NaN or infinity, weights are negative or all 0, or the squared distances leave the range of floats; or
        arguments differ between the ranks of a group, and what one rank refuses is an error on all.
    RuntimeError
        A CUDA graph is being recorded.

    References
    ----------
    Lloyd, "Least squares quantization in PCM", IEEE Trans. Information Theory 28, 1982; Arthur and Vassilvitskii,
    "k-means++: the advantages of careful seeding", SODA 2007; Dhillon and Modha, "Concept decompositions for large
    sparse text data using clustering", Machine Learning 42, 2001 (spherical).

    Examples
    --------
    >>> import torch
    >>> from deepclust_ext import kmeans
    >>> x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [9.0, 9.0], [9.0, 8.0]])
    >>> result = kmeans(x, 2)
    >>> bool(result.labels[0] == result.labels[1]), bool(result.labels[0] == result.labels[2])
    (True, False)
    >>> result.inertia.item(), [record.objective.item() for record in result.history][-1]
    (1.0, 1.0)
    """
    for each in (x, init, sample_weight):
        refuse_vmap("kmeans", "pass the batch itself, as x of shape (..., N, d)", each)
    if group is not None or max_memory is not None:
        # One process that reads blocks does as a group of one does.
        ranks = Ranks("kmeans", None, 0, 1) if group is None else ranks_of("kmeans", group)
        return _scaled(
            *kmeans_of_ranks(
                ranks, x, n_clusters, init, max_iter, tol, n_init, empty, spherical, sample_weight, seed, max_memory
            )
        )
    points, clusters, start = check_inputs(x, n_clusters, init)
    check_count(clusters, points.shape[-2])
    refuse_capture("kmeans", points)
    options = options_of(start, max_iter, tol, n_init, empty, spherical, seed)
    weights, scale = scaled_weights(points, sample_weight)
    if spherical:
        points = unit_rows(points)
        start = None if start is None else unit_rows(start)

    best: tuple[Tensor, ...] | None = None
    for own_seed in options.seeds:
        random = isinstance(init, str) and init == "random"
        given = random_rows(points, clusters, own_seed, weights) if random else start
        found = settled(
            points, given, clusters, own_seed, options.max_iter, options.tol, options.rule, spherical, weights
        )
        best = found if best is None else lower(best, found)
    assert best is not None
    check_range(best[2], points.shape[-2] * points.shape[-1], lambda: (points.amin(-2), points.amax(-2)))
    return _scaled(best, scale)


def _scaled(raw: tuple[Tensor, ...], scale: Tensor | None) -> KMeansResult:
    if scale is not None:
        raw[2].mul_(scale)
        raw[4][..., 0].mul_(scale.unsqueeze(-1))
    return _result(raw)


def _result(raw: tuple[Tensor, ...]) -> KMeansResult:
    centroids, labels, inertia, n_iter, history, empties = raw
    length = int(n_iter.max()) if n_iter.numel() else 0
    records = [
        KMeansIteration(history[..., i, 0], history[..., i, 1], empties[..., i], history[..., i, 2])
        for i in range(length)
    ]
    ran = torch.arange(empties.shape[-1], device=empties.device) < n_iter.unsqueeze(-1)
    return KMeansResult(centroids, labels, inertia, n_iter, records, (empties * ran).sum(-1))


@torch.library.register_fake("deepclust::kmeans")
def _(
    x: Tensor,
    centroids: Tensor | None,
    n_clusters: int,
    seed: int,
    max_iter: int,
    tol: float,
    empty: int,
    spherical: bool,
    sample_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, dtype = x.shape[:-2], accumulator_dtype(x.dtype)
    return (
        x.new_empty((*batch, n_clusters, x.shape[-1]), dtype=dtype),
        x.new_empty(x.shape[:-1], dtype=torch.int64),
        x.new_empty(batch, dtype=dtype),
        x.new_empty(batch, dtype=torch.int64),
        x.new_empty((*batch, max_iter, 3), dtype=torch.float64),
        x.new_empty((*batch, max_iter), dtype=torch.int64),
    )


@torch.library.register_fake("deepclust::kmeans_plusplus")
def _(x: Tensor, n_clusters: int, seed: int, sample_weight: Tensor | None = None) -> Tensor:
    return x.new_empty((*x.shape[:-2], n_clusters), dtype=torch.int64)
