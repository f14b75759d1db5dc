"""Sums over the rows of all ranks with the bits of one rank: added one after another within blocks, then the blocks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from deepclust_ext.distributed.ranks import Ranks

__all__ = ["added_in_order", "sum_of_blocks"]

_CHUNK = 1 << 20  # doubles at a time


def added_in_order(values: Tensor, start: Tensor | None = None) -> Tensor:
    """The sum [width] of values [rows, width], from `start` or 0 on, one row after another in float64 on the CPU."""
    values = values.double().cpu()
    first = values.new_zeros(values.shape[1]) if start is None else start
    # A running sum along contiguous memory has one order; torch's own sums are trees.
    return torch.cat([first.unsqueeze(0), values]).T.contiguous().cumsum(1)[:, -1].clone()


def sum_of_blocks(
    ranks: Ranks, rows: Sequence[int], block: int, width: int, values: Callable[[int, int], Tensor], cost: int = 1
) -> Tensor:
    """The sum [width] of a value per row: blocks of `block` rows are added up in order, and then their sums in order.

    Blocks are counted over all ranks. One that lies on several is begun by the first of them and handed on.

    Parameters
    ----------
    rows : sequence of int
        Rows of every rank.
    values : callable
        `values(begin, end)` gives [end - begin, width] for these of this rank's rows.
    cost : int
        Doubles that `values` makes of a row on the way; it is called with so few rows that memory stays small.
    """
    starts = [sum(rows[:rank]) for rank in range(ranks.size + 1)]
    total, first, last = starts[-1], starts[ranks.rank], starts[ranks.rank + 1]
    edges = [first, *range(first + block - first % block, last, block), last] if last > first else []
    pieces = list(itertools.pairwise(edges))
    waits = bool(pieces) and first % block != 0

    def sum_piece(piece: tuple[int, int], start: Tensor) -> Tensor:
        step = max(1, _CHUNK // max(width, cost))
        for begin in range(piece[0] - first, piece[1] - first, step):
            start = added_in_order(values(begin, min(piece[1] - first, begin + step)), start)
        return start

    nothing = torch.zeros(width, dtype=torch.float64, device="cpu")
    # In one piece of memory: small ones, kept between large ones that come and go, leave holes that nothing fits.
    sums = nothing.new_zeros(len(pieces), width)
    for i in range(waits, len(pieces)):
        sums[i] = sum_piece(pieces[i], nothing)
    begun = nothing
    for rank in range(ranks.size):
        if rank == ranks.rank and pieces:
            if waits:
                sums[0] = sum_piece(pieces[0], begun)
            begun = sums[-1] if last % block else nothing
        if rank + 1 < ranks.size and starts[rank + 1] % block:
            begun = ranks.from_rank(rank, begun)
        elif starts[rank + 1] % block == 0:
            begun = nothing
    # A block's sum is where its last row is.
    done = [own for (_, end), own in zip(pieces, sums, strict=True) if end % block == 0 or end == total]
    counts = [_ended(begin, end, block, total) for begin, end in itertools.pairwise(starts)]
    found = torch.cat(ranks.gather(torch.stack(done) if done else nothing.new_zeros(0, width), counts))
    return added_in_order(found)


def _ended(begin: int, end: int, block: int, total: int) -> int:
    """Blocks whose last row is among rows [begin, end)."""
    if end == begin:
        return 0
    return end // block - begin // block + (1 if end == total and end % block else 0)
