"""Bytes that a rank receives: counted as they come, and as a model of the sizes; the two are held together by a test.

A model has equal shards, and the collectives' usual cost: all_gather brings (R - 1) s bytes of shares of s bytes,
all_reduce of s bytes 2 (R - 1) / R s (a ring), broadcast s on every rank but the sender, all_to_all what is for the
rank.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch.distributed as dist
from torch import Tensor

from deepclust_ext.distributed.ranks import _COUNTS, _PIECES


@dataclass
class Traffic:
    """Collective calls of a rank, and bytes that it receives in them."""

    calls: int = 0
    received: float = 0.0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.calls + other.calls, self.received + other.received)

    def __sub__(self, other: Traffic) -> Traffic:
        return Traffic(self.calls - other.calls, self.received - other.received)


@dataclass
class _Counter(Traffic):
    """Stands in for the collectives that `Ranks` calls."""

    real: dict[str, Any] = field(default_factory=dict)

    def all_gather(self, parts: list[Tensor], own: Tensor, group: Any = None) -> None:
        self._note((len(parts) - 1) * own.nbytes)
        self.real["all_gather"](parts, own, group=group)

    def all_reduce(self, x: Tensor, group: Any = None) -> None:
        size = dist.get_world_size(group)
        self._note(2 * (size - 1) / size * x.nbytes)
        self.real["all_reduce"](x, group=group)

    def all_to_all_single(self, out: Tensor, x: Tensor, taken: list[int], given: list[int], group: Any = None) -> None:
        self._note(out.nbytes * (1 - 1 / dist.get_world_size(group)))
        self.real["all_to_all_single"](out, x, taken, given, group=group)

    def broadcast(self, x: Tensor, source: int, group: Any = None) -> None:
        self._note(0 if source == dist.get_rank() else x.nbytes)
        self.real["broadcast"](x, source, group=group)

    def _note(self, size: float) -> None:
        self.calls += 1
        self.received += size


@contextlib.contextmanager
def counted() -> Iterator[Traffic]:
    """Count what this process receives within the block."""
    counter = _Counter()
    names = ("all_gather", "all_reduce", "all_to_all_single", "broadcast")
    counter.real = {name: getattr(dist, name) for name in names}
    try:
        for name in names:
            setattr(dist, name, getattr(counter, name))
        yield counter
    finally:
        for name, real in counter.real.items():
            setattr(dist, name, real)


# What the parts of an op cost, on each of `ranks`


def gather(ranks: int, share: int) -> Traffic:
    """Of shares of so many bytes."""
    return Traffic(1, (ranks - 1) * share)


def sum_ordered(ranks: int, entries: int, size: int = 4) -> Traffic:
    """Of so many floats: all of every rank's, or a piece to each rank and its sum to all."""
    if entries < _PIECES:
        return gather(ranks, entries * size)
    piece = -(-entries // ranks) * size
    return Traffic(2, 2 * (ranks - 1) * piece)


def agreement(ranks: int) -> Traffic:
    """That all ranks were given the same."""
    return gather(ranks, 8 * (2 + _COUNTS))


# The ops


def mi_loss(ranks: int, classes: int) -> Traffic:
    """Of C classes; samples cost nothing."""
    return agreement(ranks) + sum_ordered(ranks, classes**2)


def dhog_loss(ranks: int, heads: int, classes: int) -> Traffic:
    """A joint for each head, all views in one, and for each two heads."""
    return agreement(ranks) + sum_ordered(ranks, (heads + heads * (heads - 1) // 2) * classes**2)


def knn(ranks: int, rows: int, dim: int) -> Traffic:
    """`rows` of each rank travel, and queries stay."""
    blocks = max(1, -(-rows * dim * 4 // (256 << 20)))
    return agreement(ranks) + Traffic(ranks * blocks, (ranks - 1) * rows * dim * 4)


def kmeans_iteration(ranks: int, clusters: int, dim: int) -> Traffic:
    """Sums, members and weights of the clusters, as whole numbers."""
    return Traffic(1, 2 * (ranks - 1) / ranks * (clusters + 1) * (dim + 2) * 8)


def bank_nll_entropy(ranks: int, batch: int, neighbors: int, dim: int) -> Traffic:
    """A batch of each rank travels to every shard of the bank, and its sums and gradients back."""
    places = gather(ranks, 8 * batch) + gather(ranks, 8 * batch * neighbors)
    sums = gather(ranks, 6 * ranks * batch * 8)
    gradients = Traffic(1, (ranks - 1) * batch * 2 * dim * 4)
    return agreement(ranks) + places + gather(ranks, batch * dim * 4) + sums + gradients


def bank_update(ranks: int, batch: int, dim: int) -> Traffic:
    """Indices and features of all samples."""
    return agreement(ranks) + gather(ranks, 8 * batch) + gather(ranks, batch * dim * 4)
