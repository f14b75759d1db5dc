"""`knn` over the ranks of a process group: queries stay where they are, the points of every rank come by in turn.

Each pair's value is computed as one rank alone computes it, from the two rows; lists of candidates are merged by value
and by index among all points, which is a total order. So the result has the bits of one rank on all rows. In all, every
rank receives all points once, and holds a block of them at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from deepclust_ext.distributed import Ranks
from deepclust_ext.ops import _raw
from deepclust_ext.ops._common import accumulator_dtype

__all__ = ["check_finite", "knn_of_all"]

# Of other ranks' points at a time.
_BLOCK_BYTES = 256 << 20


def check_finite(op: str, arg: str, x: Tensor, first: int = 0) -> None:
    """Refuse NaN and infinity in the kernel's words, before a row is sent to others; x begins at row `first`."""
    if x.numel() == 0 or x.isfinite().all():
        return
    row = first + int((~x.isfinite().all(-1)).reshape(-1).nonzero()[0])
    raise ValueError(f"{op}: '{arg}' must be finite, got NaN or infinity in row {row}; drop or mend such rows")


def knn_of_all(
    ranks: Ranks, x: Tensor, k: int, query: Tensor | None, metric: str, rows: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Values and indices (..., Q or n, k) of this rank's queries (..., Q, d), or of its points x (..., n, d).

    `rows` are the numbers of points of all ranks. x and query have the same leading dimensions, and are finite.
    """
    asking = x if query is None else query
    empty = (*asking.shape[:-1], 0 if asking.numel() else k)
    values = x.new_empty(empty, dtype=accumulator_dtype(x.dtype))
    indices = torch.empty(empty, dtype=torch.int64, device=x.device)
    first = itertools.accumulate(rows, initial=0)
    for owner, start, count in zip(range(ranks.size), first, rows, strict=False):
        own = owner == ranks.rank
        for begin, block in _blocks(ranks, owner, x, count):
            if not own:
                values, indices = _merged(asking, block, asking, start + begin, k, metric, values, indices)
        if own:
            values, indices = _merged(asking, x, query, start, k, metric, values, indices)
    return values, indices


def _blocks(ranks: Ranks, owner: int, x: Tensor, count: int) -> Iterator[tuple[int, Tensor]]:
    """The owner's points, a block after another, with the number of the block's first point."""
    row_bytes = x.shape[:-2].numel() * x.shape[-1] * x.element_size()
    most = max(1, _BLOCK_BYTES // max(1, row_bytes))
    for begin in range(0, count, most):
        end = min(count, begin + most)
        if owner == ranks.rank:
            yield begin, ranks.from_rank(owner, x[..., begin:end, :])
        else:
            yield begin, ranks.from_rank(owner, x.new_empty(*x.shape[:-2], end - begin, x.shape[-1]))


def _merged(
    asking: Tensor,
    points: Tensor,
    query: Tensor | None,
    start: int,
    k: int,
    metric: str,
    values: Tensor,
    indices: Tensor,
) -> tuple[Tensor, Tensor]:
    """The k best of the lists so far and of `points`, the first of which is point `start` of all."""
    most = min(k, points.shape[-2] - (query is None))
    if most < 1 or asking.numel() == 0:
        return values, indices
    fresh_values, fresh = _raw.knn(points, query, most, metric)
    values = torch.cat([values, fresh_values], -1)
    indices = torch.cat([indices, fresh + start], -1)
    # Lists come in the order of the points, so that a stable sort leaves ties to the lowest index.
    values, order = values.sort(dim=-1, descending=metric != "euclidean", stable=True)
    return values[..., :k], indices.gather(-1, order)[..., :k]
