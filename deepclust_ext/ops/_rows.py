"""Points that are read a block of rows at a time, so that they may lie in a file larger than memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from deepclust_ext import _checks as check
from deepclust_ext.ops import _raw
from deepclust_ext.ops._common import accumulator_dtype
from deepclust_ext.ops._kmeans import unit_rows

__all__ = ["Rows", "rows_of_block", "rows_within"]

# Bytes: of an entry of a block, what its copies and the search's take; of a row all the time, labels, distances and
# draws, and weights; of an entry of the centroids, sums and moves; of blocks of partial sums.
_ENTRY, _ROW, _WEIGHT, _CENTROID, _SUMS = 48, 96, 40, 96, 64 << 20
_LEAST_ROWS = 256


class Rows:
    """A matrix of points [n, d], on any device; rows come in the dtype that they are computed in, contiguous.

    Parameters
    ----------
    x : Tensor, shape (n, d)
    step : int
        Rows that are copied at a time.
    spherical : bool
        Bring rows to unit length.
    """

    def __init__(self, x: Tensor, step: int, *, spherical: bool) -> None:
        self.x, self.step, self.spherical = x, step, spherical
        self.shape, self.device, self.dtype = x.shape, x.device, accumulator_dtype(x.dtype)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, which: slice | Tensor) -> Tensor:
        rows = self.x[which]
        return unit_rows(rows) if self.spherical else rows.to(self.dtype).contiguous()

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """Blocks of rows, with their place."""
        for begin in range(0, len(self), self.step):
            place = slice(begin, min(len(self), begin + self.step))
            yield place, self[place]

    def nearest(self, centroids: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest centroid (n,) of each row and the squared distance (n,) to it, on the CPU."""
        labels = torch.zeros(len(self), dtype=torch.int64, device="cpu")
        distances = torch.zeros(len(self), dtype=self.dtype, device="cpu")
        centroids = centroids.to(self.device)
        for place, block in self.blocks():
            labels[place], distances[place] = (found.cpu() for found in _raw.kmeans_assign(block, centroids))
        return labels, distances


def rows_within(points: Tensor, clusters: int, max_memory: object, weighted: bool) -> int:
    """Rows of a block, so that k-means of points (..., n, d) takes no more than `max_memory` bytes beside them."""
    n, d = points.shape[-2:]
    if max_memory is None:
        return max(1, n)
    always = _SUMS + n * (_ROW + _WEIGHT * weighted) + clusters * (d + 2) * _CENTROID
    return rows_of_block("kmeans", points, max_memory, always, d * _ENTRY, f"and {clusters} clusters")


def rows_of_block(op: str, points: Tensor, max_memory: object, always: int, row: int, beside: str) -> int:
    """Rows of a block of points (n, d), where `always` bytes are taken anyway, and `row` more by a row of the block.

    `beside` is what else the least bound depends on, for the message.
    """
    most = check.whole_number(op, "max_memory", max_memory, at_least=1)
    if points.dim() != 2 or points.device.type != "cpu":
        raise ValueError(
            f"{op}: 'x' must be one matrix (N, d) on the CPU with 'max_memory', got shape {tuple(points.shape)} on "
            f"{points.device}"
        )
    n, d = points.shape
    least = always + _LEAST_ROWS * row
    if most < least:
        raise ValueError(
            f"{op}: 'max_memory' must be at least {least} for {n} points of {d} columns {beside}, got {most}"
        )
    return max(1, min(n, (most - always) // row))
