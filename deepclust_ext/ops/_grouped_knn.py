"""`knn` over the ranks of a process group, or of rows that one process reads a block at a time.

Queries stay where they are, and the points of every rank come by in turn, a block after another. Each pair's value is
computed as one rank alone computes it, from the two rows; lists of candidates are merged by value and by index among
all points, which is a total order. So the result has the bits of one rank on all rows. In all, every rank receives all
points once, and holds a block of them at a time; one process reads its queries once for each block.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from deepclust_ext.distributed import Ranks
from deepclust_ext.ops import _raw
from deepclust_ext.ops._common import accumulator_dtype, all_finite
from deepclust_ext.ops._rows import rows_of_block

__all__ = ["check_finite", "in_blocks", "knn_of_all", "rows_within"]

# Of other ranks' points at a time, where no bound is given.
_BLOCK_BYTES = 256 << 20
# Bytes: of an entry of a block in float32, its copies and the search's; of a row of a block, beside lists; of one of
# the lists' neighbours, candidates and what merging copies; of a result; of small things.
_ENTRY, _ROW, _CANDIDATE, _RESULT, _SMALL = 24, 640, 160, 8, 16 << 20


def check_finite(op: str, arg: str, x: Tensor, first: int = 0) -> None:
    """Refuse NaN and infinity in the kernel's words, before a row is sent to others; x begins at row `first`."""
    if all_finite(x):
        return
    row = first + int((~x.isfinite().all(-1)).reshape(-1).nonzero()[0])
    raise ValueError(f"{op}: '{arg}' must be finite, got NaN or infinity in row {row}; drop or mend such rows")


def in_blocks(x: Tensor, step: int | None) -> Iterator[tuple[int, Tensor]]:
    """Blocks of so many rows of x (..., n, d), each with the number of its first row; all rows without a step."""
    n = x.shape[-2]
    for begin in range(0, n, step or max(1, n)):
        yield begin, x[..., begin : begin + (step or n), :]


def rows_within(
    op: str, points: Tensor, query: Tensor | None, k: int, max_memory: object, *, more: int = 0
) -> int | None:
    """Rows of a block of points (n, d) and of queries, so that no more than `max_memory` bytes are taken beside them.

    `more` bytes are taken of each neighbour beside the results. None without a bound.
    """
    if max_memory is None:
        return None
    size = accumulator_dtype(points.dtype).itemsize
    asking = (points if query is None else query).shape[-2]
    always = _SMALL + asking * k * (size + _RESULT + more)
    row = 2 * points.shape[-1] * _ENTRY * size // 4 + k * _CANDIDATE + _ROW
    return rows_of_block(op, points, max_memory, always, row, f"and k = {k}")


def knn_of_all(
    ranks: Ranks,
    x: Tensor,
    k: int,
    query: Tensor | None,
    metric: str,
    rows: Sequence[int],
    steps: Sequence[int | None],
) -> tuple[Tensor, Tensor]:
    """Values and indices (..., Q or n, k) of this rank's queries (..., Q, d), or of its points x (..., n, d).

    `rows` are the numbers of points of all ranks, and `steps` those of a block where a rank has a bound of memory. x
    and query have the same leading dimensions, and are finite.
    """
    own_first = sum(rows[: ranks.rank]) if query is None else None
    found = Found(x if query is None else query, own_first, k, metric, steps[ranks.rank])
    bounded = [step for step in steps if step is not None]
    first = itertools.accumulate(rows, initial=0)
    for owner, start, count in zip(range(ranks.size), first, rows, strict=False):
        own = owner == ranks.rank
        if ranks.size > 1:
            for begin, block in _sent(ranks, owner, x, count, min(bounded) if bounded else None):
                if not own:
                    found.merge(block, start + begin)
        if own:
            for begin, block in in_blocks(x, steps[owner]):
                found.merge(block, start + begin)
    return found.values, found.indices


def _sent(ranks: Ranks, owner: int, x: Tensor, count: int, step: int | None) -> Iterator[tuple[int, Tensor]]:
    """The owner's points, a block after another, with the number of the block's first point."""
    row_bytes = x.shape[:-2].numel() * x.shape[-1] * x.element_size()
    most = max(1, _BLOCK_BYTES // max(1, row_bytes))
    most = most if step is None else min(most, step)
    for begin in range(0, count, most):
        end = min(count, begin + most)
        if owner == ranks.rank:
            yield begin, ranks.from_rank(owner, x[..., begin:end, :])
        else:
            yield begin, ranks.from_rank(owner, x.new_empty(*x.shape[:-2], end - begin, x.shape[-1]))


class Found:
    """The best neighbours so far of rows, as blocks of points come by in the order of their indices.

    Parameters
    ----------
    asking : Tensor, shape (..., q, d)
        The rows.
    first : int or None
        Where they begin among all points, which they are some of: each leaves itself out. None for others.
    k, metric
        As in `knn`.
    step : int or None
        Rows that are asked for at a time. Those that are points come by in the same blocks.
    """

    def __init__(self, asking: Tensor, first: int | None, k: int, metric: str, step: int | None) -> None:
        self.asking, self.first, self.k, self.metric, self.step = asking, first, k, metric, step
        shape = (*asking.shape[:-1], k)
        self.values = asking.new_empty(shape, dtype=accumulator_dtype(asking.dtype))
        self.indices = asking.new_empty(shape, dtype=torch.int64)

    def merge(self, points: Tensor, start: int) -> None:
        """Look among `points`, the first of which is point `start` of all."""
        if self.asking.numel():
            for begin, block in in_blocks(self.asking, self.step):
                self._merge(block, begin, points, start)

    def _merge(self, asking: Tensor, begin: int, points: Tensor, start: int) -> None:
        own = None if self.first is None else self.first + begin
        itself = own == start
        # All points before `start` have been candidates, but a row for itself.
        had = min(self.k, start - (own is not None and own < start))
        most = min(self.k, points.shape[-2] - itself)
        if most < 1:
            return
        values, indices = _raw.knn(points, None if itself else asking, most, self.metric)
        indices += start
        rows = slice(begin, begin + asking.shape[-2])
        if had:
            # Lists come in the order of the points, so that a stable sort leaves ties to the lowest index.
            indices = torch.cat([self.indices[..., rows, :had], indices], -1)
            values, order = torch.cat([self.values[..., rows, :had], values], -1).sort(
                dim=-1, descending=self.metric != "euclidean", stable=True
            )
            indices = indices.gather(-1, order[..., : self.k])
        kept = min(self.k, had + most)
        self.values[..., rows, :kept], self.indices[..., rows, :kept] = values[..., :kept], indices[..., :kept]
