"""The rows of a memory bank that lie on the ranks of a group: which, and what is known of all of them."""

from __future__ import annotations

import itertools
from typing import NoReturn

import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from deepclust_ext.distributed import Ranks, ranks_of
from deepclust_ext.ops.augmentation_loss import GRAM_ROWS, gram_of_blocks

_NAME = "MemoryBank"


class Shards:
    """A process group as a part of a module: copies of the module are in the same group, and no file can hold it."""

    def __init__(self, group: ProcessGroup | None) -> None:
        self.group = group
        self.ranks = Ranks(_NAME, None, 0, 1) if group is None else ranks_of(_NAME, group)

    def __deepcopy__(self, memo: object) -> Shards:
        return self

    def __reduce__(self) -> str | tuple[object, ...]:
        return (Shards, (None,)) if self.group is None else self._refuse()

    def _refuse(self) -> NoReturn:
        raise TypeError(f"{_NAME}: 'group' must be None to pickle it; save its state_dict on every rank")

    def bounds(self, size: int) -> list[int]:
        """Where the ranks' rows begin, and the end."""
        return [size * rank // self.ranks.size for rank in range(self.ranks.size + 1)]

    def share(self, size: int) -> slice:
        """Which rows of `size` are on this rank."""
        bounds = self.bounds(size)
        return slice(bounds[self.ranks.rank], bounds[self.ranks.rank + 1])

    def every_index(self, index: Tensor) -> Tensor:
        """The indices (B,) of all ranks, in rank order; what is none is for the op to refuse, on all ranks."""
        fits = isinstance(index, Tensor) and index.dtype == torch.int64 and index.dim() == 1
        own = index if fits else torch.empty(0, dtype=torch.int64)
        if self.ranks.size == 1:
            return own
        counts = [count for (count,) in self.ranks.agree(lambda: (None, {}, (len(own),)))[1]]
        return torch.cat(self.ranks.gather(own, counts))

    def rows_at(self, bank: Tensor, rows: Tensor, size: int) -> Tensor:
        """The rows at ascending places (B,) of the bank of all ranks, of which `bank` are this one's."""
        if self.ranks.size == 1:
            return bank[rows]
        bounds = torch.tensor(self.bounds(size), device=rows.device)
        ends = torch.searchsorted(rows, bounds).tolist()
        own = slice(ends[self.ranks.rank], ends[self.ranks.rank + 1])
        counts = [end - begin for begin, end in itertools.pairwise(ends)]
        return torch.cat(self.ranks.gather(bank[rows[own].to(bank.device) - bounds[self.ranks.rank]], counts))

    def gram(self, bank: Tensor, size: int) -> Tensor:
        """M^T M (d, d) of the rows of all ranks, added in their order."""
        places = torch.arange(size, device=bank.device).split(GRAM_ROWS)
        return gram_of_blocks(bank, (self.rows_at(bank, some, size) for some in places))
