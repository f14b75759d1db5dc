"""k-means++ over ranks that hold the points: the draws of one rank, bit for bit (csrc/cpu/kmeans/kmeans_plusplus.h).

Each rank keeps D^2 of its own points; all ranks keep the sums of blocks of 1,024 points, and draw the same numbers. A
draw finds its block in these sums, and looks at the block's values and at one point, which their ranks send round.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deepclust_ext.distributed import Ranks
from deepclust_ext.distributed.ordered import added_in_order
from deepclust_ext.ops import _raw
from deepclust_ext.ops._rows import Rows

__all__ = ["Seeding", "spread_bits"]

_BLOCK = 1024  # kWeightBlock
_REJECTIONS = 32  # kRejections
_WORD = 2**64 - 1


class _Random:
    """The stream `stream` of a seed: csrc/common/random.h."""

    def __init__(self, seed: int, stream: int) -> None:
        self.key = _mixed((_mixed(seed & _WORD) + stream) & _WORD)
        self.counter = 0

    def uniform(self) -> float:
        self.counter = (self.counter + 0x9E3779B97F4A7C15) & _WORD
        return float(_mixed((self.key + self.counter) & _WORD) >> 11) * 2.0**-53

    def below(self, size: int) -> int:
        return min(int(self.uniform() * float(size)), size - 1)


def _mixed(word: int) -> int:
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & _WORD
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & _WORD
    return word ^ (word >> 31)


def spread_bits(ranks: Ranks, x: Tensor) -> Tensor:
    """Floats of which every entry is 0 on all ranks but one, as that one has them."""
    whole = {4: torch.int32, 8: torch.int64}[x.element_size()]
    return ranks.sum_whole(x.contiguous().view(whole)).view(x.dtype)


class Seeding:
    """Draws starting centroids for one matrix of points, of which x [n, d] are this rank's.

    Parameters
    ----------
    rows : sequence of int
        Points of every rank.
    weights : Tensor, shape (n,), float64, or None
        Of this rank's points, on the CPU.
    """

    def __init__(
        self, ranks: Ranks, x: Rows, weights: Tensor | None, rows: Sequence[int], seed: int, stream: int
    ) -> None:
        self.ranks, self.x, self.weights = ranks, x, weights
        self.starts = [sum(rows[:rank]) for rank in range(ranks.size + 1)]
        self.first, self.last, self.total = self.starts[ranks.rank], self.starts[ranks.rank + 1], self.starts[-1]
        self.random = _Random(seed, stream)
        self.squared = torch.ones(len(x), dtype=x.dtype, device="cpu")
        self.sums = torch.zeros(0, dtype=torch.float64, device="cpu")
        self.seeds: list[int] = []
        self.centroids: list[Tensor] = []
        self.done = 0  # seeds that the weights know of
        # Blocks that several ranks have rows of.
        self.shared = sorted({s // _BLOCK for s in self.starts[1:-1] if s % _BLOCK and s < self.total})

    def run(self, clusters: int) -> Tensor:
        """The points [clusters, d] drawn, on every rank."""
        for k in range(clusters):
            seed, row = self._first() if k == 0 else self._draw()
            self.seeds.append(seed)
            self.centroids.append(row)
            waiting = k + 1 - self.done
            passes = k + 1 < clusters and waiting >= max(self.done, 1)
            self._set(seed, 0.0, recount=k + 1 < clusters and not passes)
            if passes:
                self._lower()
        return torch.stack(self.centroids)

    def _first(self) -> tuple[int, Tensor]:
        if self.weights is None:
            seed = self.random.below(self.total)
        else:
            self._sum_all()
            seed = self._find(self.random.uniform() * self._sum())
        self.squared.fill_(torch.inf)
        return seed, self._near(seed)[1]

    def _draw(self) -> tuple[int, Tensor]:
        rejected = 0
        while True:
            if rejected == _REJECTIONS and self.done < len(self.seeds):
                self._lower()
            seed = self._find(self.random.uniform() * self._sum())
            if seed < 0:
                seed = self._any_other()
                return seed, self._near(seed)[1]
            (stale, fresh), row = self._near(seed)
            if fresh == stale or self.random.uniform() * stale < fresh:
                return seed, row
            self._set(seed, fresh)
            rejected += 1

    def _near(self, point: int) -> tuple[tuple[float, float], Tensor]:
        """D^2 of a point as kept, and with the seeds that wait; and the point itself, from the rank that holds it."""
        owner = next(rank for rank in range(self.ranks.size) if point < self.starts[rank + 1])
        told = torch.zeros(2 + self.x.shape[1], dtype=self.x.dtype, device="cpu")
        if owner == self.ranks.rank:
            own = point - self.first
            told[0] = told[1] = self.squared[own]
            row = self.x[own : own + 1]
            told[2:] = row[0]
            if self.done < len(self.seeds):
                waiting = torch.stack(self.centroids[self.done :]).to(self.x.device)
                told[1] = min(told[0], _raw.kmeans_assign(row, waiting)[1][0].cpu())
        told = self.ranks.from_rank(owner, told)
        return (float(told[0]), float(told[1])), told[2:].clone()

    def _lower(self) -> None:
        """Bring the seeds that wait into all of D^2."""
        if len(self.x):
            self.squared = torch.minimum(self.squared, self.x.nearest(torch.stack(self.centroids[self.done :]))[1])
        self.done = len(self.seeds)
        self._sum_all()

    def _set(self, point: int, value: float, recount: bool = True) -> None:
        if self.first <= point < self.last:
            self.squared[point - self.first] = value
        if recount:
            block = point // _BLOCK
            self.sums[block] = added_in_order(self._block(block).unsqueeze(1))[0]

    # What is drawn from: w D^2, and its sums by blocks

    def _at(self, begin: int, end: int) -> Tensor:
        own = self.squared[begin:end].double()
        if self.weights is None:
            return own
        weights = self.weights[begin:end]
        return torch.where(weights > 0, weights * own, 0.0)

    def _block(self, block: int) -> Tensor:
        """The values [1024] of a block, from the ranks that hold its points."""
        return self._blocks([block])[0]

    def _blocks(self, blocks: Sequence[int]) -> Tensor:
        values = torch.zeros(len(blocks), _BLOCK, dtype=torch.float64, device="cpu")
        for i, block in enumerate(blocks):
            begin, end = max(self.first, block * _BLOCK), min(self.last, (block + 1) * _BLOCK)
            if begin < end:
                values[i, begin - block * _BLOCK : end - block * _BLOCK] = self._at(
                    begin - self.first, end - self.first
                )
        return spread_bits(self.ranks, values) if blocks else values

    def _whole(self, rank: int) -> range:
        """The blocks that lie on this rank alone."""
        begin, end = self.starts[rank], self.starts[rank + 1]
        stop = -(-end // _BLOCK) if end == self.total else end // _BLOCK
        return range(-(-begin // _BLOCK), stop if end > begin else 0)

    def _sum_all(self) -> None:
        whole = self._whole(self.ranks.rank)
        begin, end = whole.start * _BLOCK - self.first, min(self.last, whole.stop * _BLOCK) - self.first
        own = torch.zeros(len(whole), dtype=torch.float64, device="cpu")
        if len(whole):
            values = torch.nn.functional.pad(self._at(begin, end), (0, len(whole) * _BLOCK - (end - begin)))
            own = values.view(-1, _BLOCK).cumsum(1)[:, -1].contiguous()
        self.sums = torch.zeros(-(-self.total // _BLOCK), dtype=torch.float64, device="cpu")
        every = self.ranks.gather(own, [len(self._whole(rank)) for rank in range(self.ranks.size)])
        for rank, found in enumerate(every):
            if len(found):
                self.sums[self._whole(rank).start : self._whole(rank).stop] = found
        if self.shared:
            self.sums[self.shared] = self._blocks(self.shared).cumsum(1)[:, -1]

    def _sum(self) -> float:
        return float(added_in_order(self.sums.unsqueeze(1))[0])

    def _find(self, target: float) -> int:
        """Where the running sum passes `target`; -1 where all are 0; past the end, the last above 0."""
        found, passed, block = -1, 0.0, 0
        while block < len(self.sums):
            sums = self.sums[block:]
            running = torch.cat([sums.new_full((1,), passed), sums]).cumsum(0)
            here = (sums > 0) & (running[1:] > target)
            here[-1] |= sums[-1] > 0
            if not here.any():
                if (sums > 0).any():  # skipped, and nothing but zeros after them
                    values = self._block(block + int((sums > 0).nonzero()[-1]))
                    last = block + int((sums > 0).nonzero()[-1])
                    return last * _BLOCK + int((values > 0).nonzero()[-1])
                break
            step = int(here.nonzero()[0])
            block += step
            values = self._block(block)
            running = torch.cat([running[step : step + 1], values]).cumsum(0)[1:]
            hits = ((values > 0) & (running > target)).nonzero()
            if len(hits):
                return block * _BLOCK + int(hits[0])
            found, passed = block * _BLOCK + int((values > 0).nonzero()[-1]), float(running[-1])
            block += 1
        return found

    def _any_other(self) -> int:
        """Where every point that counts coincides with a seed: one of the others, one of weight 0 last."""
        free = torch.ones(len(self.x), dtype=torch.bool, device="cpu")
        own = [seed - self.first for seed in self.seeds if self.first <= seed < self.last]
        free[own] = False
        counting = free if self.weights is None else free & (self.weights > 0)
        counts = torch.tensor([[int(counting.sum()), int(free.sum())]], device="cpu")
        told = torch.cat(self.ranks.gather(counts, [1] * self.ranks.size))
        column = 0 if int(told[:, 0].sum()) > 0 else 1
        place = self.random.below(int(told[:, column].sum()))
        owner = 0
        while place >= int(told[owner, column]):
            place -= int(told[owner, column])
            owner += 1
        point = torch.zeros(1, dtype=torch.int64, device="cpu")
        if owner == self.ranks.rank:
            point[0] = self.first + int((counting if column == 0 else free).nonzero()[place])
        return int(self.ranks.from_rank(owner, point))
