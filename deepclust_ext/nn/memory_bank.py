"""The memory bank of instance discrimination, AND and Super-AND as a module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from deepclust_ext import _checks as check
from deepclust_ext.nn._shards import Shards
from deepclust_ext.ops.augmentation_loss import GRAM_ROWS, augmentation_loss
from deepclust_ext.ops.bank_nll_entropy import bank_entropy, bank_nll, bank_nll_entropy
from deepclust_ext.ops.bank_update import bank_update_
from deepclust_ext.ops.ordered_product import ordered_product


class MemoryBank(nn.Module):
    r"""One embedding per sample of a data set, kept from step to step.

    The rows start uniform in :math:`[-s, s]`, :math:`s = \sqrt{3 / d}`, so that their length is about 1. They are a
    persistent buffer, `bank` (size, dim): `state_dict` holds it, `.to()` moves it, and `.half()` or `.bfloat16()`
    halves its memory and traffic. Losses and updates compute in float32 all the same.

    Parameters
    ----------
    size : int
        N, the number of samples.
    dim : int
        d, the embeddings' dimensions.
    momentum : float, default 0.5
        Of `update`, in [0, 1].
    temperature : float, default 0.1
        Of the losses, above 0.
    seed : int, default 0
        Of the first rows; the global random state is neither read nor changed.
    gram : bool, default False
        Keep the d x d Gram matrix of the rows for `augmentation_loss`, a persistent float64 buffer. An update changes
        it by the 2 B rows that it replaces and adds, at the cost of 2 B rows instead of N.
    group : torch.distributed.ProcessGroup, optional
        Ranks that hold the rows, an equal share each in rank order: `bank` is a rank's own, `share` says which of all
        they are. Every rank makes the same calls, with samples of its own, and indices count the rows of all ranks; see
        `bank_nll` and `bank_update_`. Rows and Gram matrix have the bits of one process. `state_dict` holds a rank's
        own rows, and `whole` gives those of all.

    Examples
    --------
    >>> import torch
    >>> from deepclust_ext.nn import MemoryBank
    >>> bank = MemoryBank(100, 8)
    >>> v, index = torch.nn.functional.normalize(torch.ones(2, 8)), torch.tensor([3, 7])
    >>> bank.nll(v, index).shape
    torch.Size([2])
    >>> bank.update(index, v)
    """

    bank: Tensor
    gram: Tensor | None
    share: slice
    """The rows of all that `bank` holds."""

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        momentum: float = 0.5,
        temperature: float = 0.1,
        seed: int = 0,
        gram: bool = False,
        group: ProcessGroup | None = None,
    ) -> None:
        super().__init__()
        self._shards = Shards(group)
        size = check.whole_number("MemoryBank", "size", size, at_least=1)
        dim = check.whole_number("MemoryBank", "dim", dim, at_least=1)
        self.momentum = check.number("MemoryBank", "momentum", momentum, at_least=0)
        if self.momentum > 1:
            raise ValueError(f"MemoryBank: 'momentum' must be between 0 and 1, got {momentum}")
        self.temperature = check.number("MemoryBank", "temperature", temperature, above=0)
        generator = torch.Generator().manual_seed(check.whole_number("MemoryBank", "seed", seed, at_least=0))
        scale = (3.0 / dim) ** 0.5
        keep = check.flag("MemoryBank", "gram", gram)
        self.size, self.share = size, self._shards.share(size)
        own = torch.empty(self.share.stop - self.share.start, dim, dtype=torch.float32, device="cpu")
        total = torch.zeros(dim, dim, dtype=torch.float64, device="cpu") if keep else None
        # Of all rows, each rank keeps its own.
        for begin in range(0, size, GRAM_ROWS):
            rows = torch.rand(min(GRAM_ROWS, size - begin), dim, generator=generator, dtype=torch.float32, device="cpu")
            rows = rows.mul_(2 * scale).sub_(scale)
            first, last = max(begin, self.share.start), min(begin + len(rows), self.share.stop)
            if first < last:
                own[first - self.share.start : last - self.share.start] = rows[first - begin : last - begin]
            total = None if total is None else total + ordered_product(rows, rows)
        self.register_buffer("bank", own)
        self.register_buffer("gram", total)

    def extra_repr(self) -> str:
        """Sizes and settings."""
        held = "" if self.group is None else f", rows {self.share.start} to {self.share.stop} here"
        settings = f"momentum={self.momentum:g}, temperature={self.temperature:g}"
        return f"{self.size}, {self.bank.shape[1]}, {settings}{held}"

    @property
    def group(self) -> ProcessGroup | None:
        """The ranks that hold the rows, if there are several."""
        return self._shards.group

    @torch.no_grad()
    def update(self, index: Tensor, features: Tensor) -> None:
        """Move the rows at index (B,) towards features (B, d), in batch order; see `bank_update_`."""
        if self.gram is None:
            bank_update_(self.bank, index, features, momentum=self.momentum, group=self.group)
            return
        # Indices outside of the bank are for the update itself to refuse.
        rows = self._shards.every_index(index).unique()
        rows = rows[(rows >= 0) & (rows < self.size)]
        before = self._shards.rows_at(self.bank, rows, self.size).double()
        bank_update_(self.bank, index, features, momentum=self.momentum, group=self.group)
        after = self._shards.rows_at(self.bank, rows, self.size).double()
        if len(rows):
            self.gram += ordered_product(after, after) - ordered_product(before, before)

    def whole(self) -> Tensor:
        """The rows (N, d) of all ranks, on every rank."""
        return self._shards.rows_at(self.bank, torch.arange(self.size, device=self.bank.device), self.size)

    @torch.no_grad()
    def refresh(self) -> None:
        """Compute the Gram matrix anew: after rows were written by other means than `update`."""
        if self.gram is not None:
            self.gram.copy_(self._shards.gram(self.bank, self.size))

    def nll(self, v: Tensor, index: Tensor, neighbors: Tensor | None = None) -> Tensor:
        """See `bank_nll`."""
        return bank_nll(v, self.bank, index, neighbors, temperature=self.temperature, group=self.group)

    def entropy(self, v: Tensor, exclude: Tensor | None = None) -> Tensor:
        """See `bank_entropy`."""
        return bank_entropy(v, self.bank, exclude, temperature=self.temperature, group=self.group)

    def nll_entropy(self, v: Tensor, index: Tensor, neighbors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `bank_nll_entropy`."""
        return bank_nll_entropy(v, self.bank, index, neighbors, temperature=self.temperature, group=self.group)

    def augmentation_loss(self, v: Tensor, v_aug: Tensor, *, negative_weight: float = 1.0) -> Tensor:
        """See `augmentation_loss`; the bank is read only where no Gram matrix is kept.

        Of a bank whose rows lie on several ranks it must be kept, and the loss is that of this rank's views.
        """
        if self.group is not None and self.gram is None:
            raise ValueError("MemoryBank: 'gram' must be True for augmentation_loss where there is a group, got False")
        return augmentation_loss(
            v, v_aug, self.bank, temperature=self.temperature, negative_weight=negative_weight, gram=self.gram
        )

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> MemoryBank:
        """Move and convert the rows; the Gram matrix follows, in float64 whatever they are."""
        kept, dtype, self.gram = self.gram, self.bank.dtype, None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if kept is not None:
            # Rows of another dtype were rounded, and have another Gram matrix.
            same = self.bank.dtype == dtype
            self.gram = kept.to(self.bank.device) if same else self._shards.gram(self.bank, self.size)
        return self
