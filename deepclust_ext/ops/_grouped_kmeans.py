"""Lloyd's iterations over ranks that hold the points: the bits of one rank, on the CPU (csrc/cpu/kmeans/kmeans.h).

Each rank assigns its own points. Sums of clusters are the same integers as there, so their all-reduce is exact, and all
ranks move the centroids alike. What is a sum of floats over all points (their mean, the inertia) is formed in the order
of one rank (distributed/ordered.py). Small things are kept on the CPU, whatever holds the points.

An iteration sends K (d + 2) integers, and a few numbers a cluster that is empty; the mean and k-means++ send more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from deepclust_ext.distributed import Ranks
from deepclust_ext.distributed.ordered import added_in_order, sum_of_blocks
from deepclust_ext.ops._grouped_seeding import Seeding, spread_bits
from deepclust_ext.ops._kmeans import lower, random_indices, with_records
from deepclust_ext.ops._rows import Rows

__all__ = ["Columns", "kmeans_of_all"]

_CHUNK = 1 << 22  # entries of points that are turned into integers at a time
_SPLIT, _KEEP = 0, 2


class Columns(NamedTuple):
    """Of the points of all ranks, on the CPU: mean, least and largest entry [d] of each column."""

    mean: Tensor
    low: Tensor
    high: Tensor


def kmeans_of_all(
    ranks: Ranks,
    x: Sequence[Rows],
    batch: torch.Size,
    start: Tensor | None,
    clusters: int,
    seeds: Sequence[int],
    random: bool,
    weights: Tensor | None,
    rows: Sequence[int],
    max_iter: int,
    tol: float,
    rule: int,
    spherical: bool,
) -> tuple[tuple[Tensor, ...], list[Columns]]:
    """What the raw op returns for the best of some starts, a seed each; and what is known of each matrix's columns.

    x are this rank's points of every matrix of the batch, weights [..., n] too; start [..., K, d] are the same on every
    rank.
    """
    w = None if weights is None else weights.reshape(batch.numel(), weights.shape[-1]).cpu()
    first = None if start is None else start.reshape(batch.numel(), clusters, start.shape[-1]).cpu()
    columns = [columns_of_all(ranks, each, rows) for each in x]
    own_weights = [None] * len(x) if w is None else list(w)
    matrices = [
        Lloyd(ranks, each, own, rows, known, rule, spherical)
        for each, own, known in zip(x, own_weights, columns, strict=True)
    ]
    every = None
    if random and w is not None:
        every = torch.cat(ranks.gather(w.T.contiguous(), rows)).T
    best: tuple[Tensor, ...] | None = None
    for seed in seeds:
        drawn = random_indices(len(x), sum(rows), clusters, seed, every) if random else None
        found = []
        for number, matrix in enumerate(matrices):
            if drawn is not None:
                given = rows_of_all(ranks, x[number], drawn[number], rows)
            else:
                given = matrix.seeds(clusters, seed, number) if first is None else first[number]
            found.append(matrix.run(given, max_iter, tol))
        length = max((len(raw[5]) for raw in found), default=0)
        parts = zip(*(with_records(raw, length) for raw in found), strict=True)
        stacked = tuple(torch.stack(part).view((*batch, *part[0].shape)) for part in parts)
        best = stacked if best is None else lower(best, stacked)
    assert best is not None
    return best, columns


def pass_rows(n: int) -> int:
    """Rows of a task that reads all points once (csrc/cpu/ops/clustering.h)."""
    return max(256, -(-n // 64))


def columns_of_all(ranks: Ranks, x: Rows, rows: Sequence[int]) -> Columns:
    """The columns of the points of all ranks, of which x [n, d] are this one's."""
    total, width = sum(rows), x.shape[1]
    mean = sum_of_blocks(ranks, rows, pass_rows(total), width, lambda begin, end: x[begin:end]) / total
    ends = torch.full((2, width), torch.inf, dtype=x.dtype, device="cpu")
    for _, block in x.blocks():
        ends = torch.minimum(ends, torch.stack([block.amin(0), -block.amax(0)]).cpu())
    low, high = torch.stack(ranks.gather(ends, [2] * ranks.size)).amin(0)
    return Columns(mean.to(x.dtype), low, -high)


def rows_of_all(ranks: Ranks, x: Rows, indices: Tensor, rows: Sequence[int]) -> Tensor:
    """The points at `indices` [K] of those of all ranks, on every rank and on the CPU."""
    first = sum(rows[: ranks.rank])
    own = indices - first
    mine = (own >= 0) & (own < len(x))
    found = torch.zeros(len(indices), x.shape[1], dtype=x.dtype, device="cpu")
    found[mine] = x[own[mine].to(x.device)].cpu()
    return spread_bits(ranks, found)


def _digits(n: int) -> int:
    """fixed_point_digits of csrc/common/fixed_point.h."""
    return min(61 - (n - 1).bit_length(), 50)


def _scale(reach: float, n: int) -> float:
    """fixed_point_scale of csrc/common/fixed_point.h."""
    return math.ldexp(1.0, min(_digits(n) - math.frexp(reach)[1], 1000)) if reach > 0 else 1.0


def _in_order(values: Tensor) -> Tensor:
    """Sums [...] over the last dimension, one term after another."""
    zero = values.new_zeros(*values.shape[:-1], 1)
    return torch.cat([zero, values], -1).cumsum(-1)[..., -1]


class Lloyd:
    """k-means of one matrix of points, of which x [n, d] are this rank's.

    Parameters
    ----------
    weights : Tensor, shape (n,), float64, or None
        Of this rank's points, on the CPU, between 0 and 1.
    rows : sequence of int
        Points of every rank.
    rule : int
        What becomes of empty clusters: 0 (split), 1 (farthest) or 2 (keep).
    """

    def __init__(
        self,
        ranks: Ranks,
        x: Rows,
        weights: Tensor | None,
        rows: Sequence[int],
        columns: Columns,
        rule: int,
        spherical: bool,
    ) -> None:
        self.ranks, self.x, self.weights, self.rows, self.rule, self.spherical = (
            ranks,
            x,
            weights,
            rows,
            rule,
            spherical,
        )
        self.total, self.first = sum(rows), sum(rows[: ranks.rank])
        self.mean = columns.mean.double()
        reach = torch.maximum(columns.high.double() - self.mean, self.mean - columns.low.double())
        self.scale = torch.tensor([_scale(r, self.total) for r in reach.tolist()], dtype=torch.float64, device="cpu")
        self.unit = 1.0 if weights is None else math.ldexp(1.0, -_digits(self.total))
        self.units = torch.ones(len(x), dtype=torch.int64, device="cpu")
        if weights is not None:
            self.units = (weights / self.unit + 0.5).long()
        self.squares = float(sum_of_blocks(ranks, rows, pass_rows(self.total), 1, self._squares, x.shape[1])[0])

    def seeds(self, clusters: int, seed: int, stream: int) -> Tensor:
        """Starting centroids [K, d] by k-means++."""
        return Seeding(self.ranks, self.x, self.weights, self.rows, seed, stream).run(clusters)

    def run(self, centroids: Tensor, max_iter: int, tol: float) -> tuple[Tensor, ...]:
        """What the raw op returns for one matrix, with this rank's labels and as many records as iterations."""
        self.centroids = centroids.clone()
        clusters, width = centroids.shape
        # [K, d + 2]: sums in units of the columns, members, and their weight in units.
        self.sums = torch.zeros(clusters, width + 2, dtype=torch.int64, device="cpu")
        labels = torch.full((len(self.x),), -1, dtype=torch.int64, device="cpu")
        history: list[list[float]] = []
        empties: list[int] = []
        settled = False
        while len(history) < max_iter and not settled:
            fresh, distances = self.x.nearest(self.centroids)
            moved = (labels != fresh).nonzero().squeeze(1)
            change = torch.zeros(clusters + 1, width + 2, dtype=torch.int64, device="cpu")
            self._move(change, moved, labels[moved], fresh[moved])
            change[clusters, 0] = len(moved)
            change = self.ranks.sum_whole(change)
            self.sums += change[:clusters]
            labels = fresh
            empty = int((self.sums[:, -2] == 0).sum())
            history.append([self._objective(), int(change[clusters, 0]) / self.total, self._imbalance()])
            empties.append(empty)
            if empty and self.rule != _KEEP:
                self._seed_empty(labels, distances)
            settled = self._step() <= tol
        labels, distances = self.x.nearest(self.centroids)
        inertia = sum_of_blocks(
            self.ranks, self.rows, pass_rows(self.total), 1, lambda a, b: self._cost(distances, a, b)
        )
        return (
            self.centroids.to(self.x.device),
            labels.to(self.x.device),
            inertia[0].to(self.x.dtype).to(self.x.device),
            torch.tensor(len(history), device=self.x.device),
            torch.tensor(history, dtype=torch.float64, device=self.x.device).view(-1, 3),
            torch.tensor(empties, dtype=torch.int64, device=self.x.device),
        )

    def _move(self, change: Tensor, points: Tensor, before: Tensor, after: Tensor) -> None:
        """Add what points that go from one cluster (-1 for none) to another change in the sums [K or more, d + 2]."""
        step = max(1, min(_CHUNK // self.x.shape[1], self.x.step))
        for begin in range(0, len(points), step):
            some, out, into = (t[begin : begin + step] for t in (points, before, after))
            own = self.x[some.to(self.x.device)].cpu().double() - self.mean
            if self.weights is not None:
                own *= self.weights[some].unsqueeze(1)
            units = self.units[some]
            whole = torch.cat([(own * self.scale).round().long(), (units > 0).long()[:, None], units[:, None]], 1)
            change.index_add_(0, into, whole)
            left = out >= 0
            change.index_add_(0, out[left], -whole[left])

    def _seed_empty(self, labels: Tensor, distances: Tensor) -> None:
        """Give each empty cluster one point, as the rule says, while there is one to give."""
        change = torch.zeros_like(self.sums)
        members, units = self.sums[:, -2].clone(), self.sums[:, -1].clone()
        for k in (members == 0).nonzero().squeeze(1).tolist():
            found = None
            if self.rule == _SPLIT:
                largest = int((units == units.max()).nonzero()[0])
                if members[largest] > 1:
                    found = self._farthest(labels, distances, labels == largest)
            found = found or self._farthest(labels, distances, members[labels] > 1)
            if found is None:
                break
            point, before, own_units = found
            for counts, own in ((members, 1), (units, own_units)):
                counts[before] -= own
                counts[k] += own
            if self.first <= point < self.first + len(labels):
                own_point = torch.tensor([point - self.first], device="cpu")
                self._move(change, own_point, labels[own_point], torch.full_like(own_point, k))
                labels[own_point] = k
                distances[own_point] = 0.0
        self.sums += self.ranks.sum_whole(change)

    def _farthest(self, labels: Tensor, distances: Tensor, eligible: Tensor) -> tuple[int, int, int] | None:
        """The farthest of these points on all ranks, the first of equals: its number, label and weight in units."""
        best = torch.zeros(1, 4, dtype=torch.float64, device="cpu")
        far = torch.where(eligible & (self.units > 0), distances, 0.0)
        if len(far) and far.max() > 0:
            own = int((far == far.max()).nonzero()[0])
            mine = (float(far[own]), int(self.units[own]), int(labels[own]), self.first + own)
            best[0] = torch.tensor(mine, dtype=torch.float64, device="cpu")
        told = torch.cat(self.ranks.gather(best, [1] * self.ranks.size))
        if not told[:, 0].max() > 0:
            return None
        _, units, label, point = told[int((told[:, 0] == told[:, 0].max()).nonzero()[0])].tolist()
        return int(point), int(label), int(units)

    def _step(self) -> float:
        """Move the centroids; the largest squared step."""
        members, weight = self.sums[:, -2:-1].double(), self.sums[:, -1:].double() * self.unit
        fresh = self.mean + self.sums[:, :-2].double() / self.scale / weight
        moves = members > 0
        if self.spherical:
            norm = _in_order(fresh.square()).sqrt().unsqueeze(1)
            moves = moves & (norm > 1e-12)
            fresh = fresh / norm
        value = fresh.to(self.centroids.dtype)
        difference = value.double() - self.centroids.double()
        # The sums know a member to 1 / scale: less is rounding.
        moves = moves & ~(difference.abs() * self.scale * weight <= members)
        self.centroids = torch.where(moves, value, self.centroids)
        return float(_in_order(torch.where(moves, difference, 0.0).square()).max())

    def _squares(self, begin: int, end: int) -> Tensor:
        squares = _in_order((self.x[begin:end].cpu().double() - self.mean).square()).unsqueeze(1)
        return squares if self.weights is None else squares * self.weights[begin:end].unsqueeze(1)

    def _cost(self, distances: Tensor, begin: int, end: int) -> Tensor:
        own = distances[begin:end].double().unsqueeze(1)
        if self.weights is None:
            return own
        weights = self.weights[begin:end].unsqueeze(1)
        return torch.where(weights > 0, weights * own, 0.0)

    def _objective(self) -> float:
        z = self.centroids.double() - self.mean
        cross = _in_order(_in_order(z * (self.sums[:, :-2].double() / self.scale)))
        own = added_in_order((self.sums[:, -1].double() * self.unit * _in_order(z.square())).unsqueeze(1))
        return max(0.0, self.squares - 2.0 * float(cross) + float(own[0]))

    def _imbalance(self) -> float:
        weight = self.sums[:, -1].double() * self.unit
        everything = float(_in_order(weight))
        return float(_in_order(weight.square())) * len(weight) / everything / everything
