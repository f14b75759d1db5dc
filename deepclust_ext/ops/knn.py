"""The nearest neighbours of points: the public function, its fake kernel and vmap rule. It has no gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from deepclust_ext import _checks as check
from deepclust_ext.distributed import Ranks, kind_of, ranks_of
from deepclust_ext.ops import _raw
from deepclust_ext.ops._common import (
    accumulator_dtype,
    batch_first,
    check_floating,
    checked_by_value,
    matched_rows,
)
from deepclust_ext.ops._grouped_knn import check_finite, in_blocks, knn_of_all, rows_within

__all__ = ["KNN", "knn"]

METRICS = ("euclidean", "cosine", "inner")


class KNN(NamedTuple):
    """What `knn` returns: k neighbours a row, the nearest first."""

    values: Tensor
    """(..., Q or N, k): squared distances, ascending, or similarities, descending."""
    indices: Tensor
    """(..., Q or N, k), int64: rows of x."""


def knn(
    x: Tensor,
    k: int,
    *,
    query: Tensor | None = None,
    metric: str = "euclidean",
    group: ProcessGroup | None = None,
    max_memory: int | None = None,
) -> KNN:
    r"""The k nearest points of `x` to each query, or to each point of `x` itself; exact.

    .. math:: v_{ij} = \sum_d (q_{id} - x_{jd})^2, \quad \frac{q_i \cdot x_j}{|q_i| |x_j|} \quad \text{or} \quad
              q_i \cdot x_j

    for the metrics "euclidean", "cosine" and "inner". The values returned are the k best of all the values as computed,
    in their order, and ties go to the lowest index. Distances are sums of squared differences as they stand, so equal
    points are at distance 0 however far from the origin they lie, and v_ij and v_ji have the same bits. So has every
    result, for any number of threads; levels of DEEPCLUST_SIMD agree bit for bit where all sums are exact, as of whole
    numbers, and otherwise to rounding. On the CPU a matrix product (over half the pairs, without a query) decides which
    pairs are looked at. Nothing of size Q x N exists; on a GPU, more than 64 neighbours (32 of float64) take up to 256
    MiB beside the results. Half inputs, and rows for the cosine, are copied in the results' dtype there.

    On a GPU the call waits until it knows whether the inputs are finite, and not for the search, so a CUDA graph cannot
    record it.

    Parameters
    ----------
    x : Tensor, shape (..., N, d), float16, bfloat16, float32 or float64
        The points. Any strides; leading dimensions are batches, each with neighbours of its own.
    k : int
        Neighbours a row: at least 1, at most the number of candidates (N, or N - 1 without a query).
    query : Tensor, shape (..., Q, d), optional
        Where to look from. Leading dimensions broadcast against those of `x`; a different dtype is promoted. Without
        it each point looks for the others: it is left out of its own list by its index, so copies of it stay.
    metric : {"euclidean", "cosine", "inner"}, default "euclidean"
        Squared Euclidean distance, or similarity; a zero row has cosine 0 with everything. Values beyond the dtype are
        infinite, so that ties are all that orders them, and a product with infinite terms of both signs is -inf.
    group : torch.distributed.ProcessGroup, optional
        Ranks that hold rows of one `x`, as many each as they like, and queries of their own. Each gets the neighbours
        of its queries (without a query, of its points) among the points of all ranks; `indices` count them in rank
        order. The same bits as one rank on all rows. Points travel and queries stay: every rank receives all of `x`
        once, and holds up to 256 MiB of it at a time.
    max_memory : int, optional
        The most bytes to take beside `x` and `query`, results included. They may then be larger than memory, as tensors
        of mapped files are: rows are read and searched a block after another, with the bits of all rows at once. For
        one matrix each, of one dtype, on the CPU. The fewer rows fit, the more often they are read: about n / B times
        for blocks of B rows. Ranks of a group may each have a bound of their own.

    Returns
    -------
    KNN
        `values`, float32 (float64 for float64 inputs), and `indices`, int64, both (..., Q or N, k). No gradient
        passes.

    Raises
    ------
    TypeError
        `x` or `query` is not a floating-point tensor, `k` not a whole number.
    ValueError
        Shapes or devices do not fit together, `k` is out of range, `metric` is unknown, or `x` or `query` holds NaN or
        infinity (a RuntimeError under torch.compile); or arguments differ between the ranks of a group, and what one
        rank refuses is an error on all.
    RuntimeError
        A CUDA graph is being recorded.

    References
    ----------
    Exact search by brute force; its order (value, then index) is total, so there is one right answer.

    Examples
    --------
    >>> import torch
    >>> from deepclust_ext import knn
    >>> points = torch.tensor([[0.0], [1.0], [3.0]])
    >>> values, indices = knn(points, 1)
    >>> values.flatten().tolist(), indices.flatten().tolist()
    ([1.0, 1.0, 4.0], [1, 0, 1])
    """
    if group is not None or max_memory is not None:
        # One process that reads blocks does as a group of one does.
        ranks = Ranks("knn", None, 0, 1) if group is None else ranks_of("knn", group)

        def prepare() -> tuple[tuple[Tensor, int, Tensor | None], dict[str, object], tuple[int, int]]:
            own = _check(x, k, query, metric, copies=max_memory is None)
            step = rows_within("knn", own[0], own[2], own[1], max_memory)
            facts: dict[str, object] = {"x": kind_of(own[0], -2), "k": own[1], "metric": metric, "query": None}
            for name, given in (("x", own[0]), ("query", own[2])):
                if given is not None:
                    facts[name] = kind_of(given, -2)
                    for begin, block in in_blocks(given, step):
                        check_finite("knn", name, block, begin)
            return own, facts, (own[0].shape[-2], step or 0)

        (x, k, query), counts = ranks.agree(prepare)
        rows = [count for count, _ in counts]
        _check_candidates(k, sum(rows), query)
        return KNN(*knn_of_all(ranks, x, k, query, metric, rows, [step or None for _, step in counts]))
    x, k, query = _check(x, k, query, metric)
    _check_candidates(k, x.shape[-2], query)
    return KNN(*checked_by_value("knn", _raw.knn, x, query, k, metric))


def _check(
    x: Tensor, k: int, query: Tensor | None, metric: str, *, copies: bool = True
) -> tuple[Tensor, int, Tensor | None]:
    check.choice("knn", "metric", metric, METRICS)
    k = check.whole_number("knn", "k", k)
    x = check_floating("knn", "x", x).detach()
    if x.dim() < 2 or x.shape[-1] < 1:
        raise ValueError(f"knn: 'x' must have shape (..., N, d) with d >= 1, got {tuple(x.shape)}")
    if query is not None:
        query = check_floating("knn", "query", query).detach()
        if query.dim() < 2 or query.shape[-1] != x.shape[-1]:
            raise ValueError(
                f"knn: 'query' must have shape (..., Q, {x.shape[-1]}) as 'x' has, got {tuple(query.shape)}"
            )
        if not copies and query.dtype != x.dtype:
            # All rows would be copied in the wider of the two.
            raise ValueError(f"knn: 'query' must have x's dtype {x.dtype} with 'max_memory', got {query.dtype}")
        x, query = matched_rows("knn", "x", x, "query", query)
    return x, k, query


def _check_candidates(k: int, points: int, query: Tensor | None) -> None:
    """Refuse a k that is no number of neighbours among so many points."""
    candidates, rows = (points - 1, "other points") if query is None else (points, "points")
    if not 1 <= k <= candidates:
        raise ValueError(f"knn: 'k' must be at least 1 and at most the number of {rows}, {max(candidates, 0)}, got {k}")


@torch.library.register_fake("deepclust::knn")
def _(x: Tensor, query: Tensor | None, k: int, metric: str) -> tuple[Tensor, Tensor]:
    rows = x if query is None else query
    shape = (*rows.shape[:-1], k)
    return x.new_empty(shape, dtype=accumulator_dtype(x.dtype)), x.new_empty(shape, dtype=torch.int64)


@torch.library.register_vmap("deepclust::knn")
def _(
    info: Any, in_dims: tuple[Any, ...], x: Tensor, query: Tensor | None, k: int, metric: str
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    x, query = (batch_first(info.batch_size, t, dim) for t, dim in zip((x, query), in_dims[:2], strict=True))
    return _raw.knn(x, query, k, metric), (0, 0)
