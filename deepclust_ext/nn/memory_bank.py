"""The memory bank of instance discrimination, AND and Super-AND as a module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from deepclust_ext import _checks as check
from deepclust_ext.ops.augmentation_loss import augmentation_loss, bank_gram
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

    def __init__(
        self,
        size: int,
        dim: int,
        *,
        momentum: float = 0.5,
        temperature: float = 0.1,
        seed: int = 0,
        gram: bool = False,
    ) -> None:
        super().__init__()
        size = check.whole_number("MemoryBank", "size", size, at_least=1)
        dim = check.whole_number("MemoryBank", "dim", dim, at_least=1)
        self.momentum = check.number("MemoryBank", "momentum", momentum, at_least=0)
        if self.momentum > 1:
            raise ValueError(f"MemoryBank: 'momentum' must be between 0 and 1, got {momentum}")
        self.temperature = check.number("MemoryBank", "temperature", temperature, above=0)
        generator = torch.Generator().manual_seed(check.whole_number("MemoryBank", "seed", seed, at_least=0))
        scale = (3.0 / dim) ** 0.5
        rows = torch.rand(size, dim, generator=generator, dtype=torch.float32, device="cpu")
        self.register_buffer("bank", rows.mul_(2 * scale).sub_(scale))
        keep = check.flag("MemoryBank", "gram", gram)
        self.register_buffer("gram", bank_gram(self.bank) if keep else None)

    def extra_repr(self) -> str:
        """Sizes and settings."""
        size, dim = self.bank.shape
        return f"{size}, {dim}, momentum={self.momentum:g}, temperature={self.temperature:g}"

    @torch.no_grad()
    def update(self, index: Tensor, features: Tensor) -> None:
        """Move the rows at index (B,) towards features (B, d), in batch order; see `bank_update_`."""
        before = None
        if self.gram is not None and index.numel() > 0:
            # Indices outside of the bank are for the update itself to refuse.
            rows = index.unique()
            rows = rows[(rows >= 0) & (rows < len(self.bank))]
            before = self.bank[rows].double()
        bank_update_(self.bank, index, features, momentum=self.momentum)
        if self.gram is not None and before is not None:
            after = self.bank[rows].double()
            self.gram += ordered_product(after, after) - ordered_product(before, before)

    @torch.no_grad()
    def refresh(self) -> None:
        """Compute the Gram matrix anew: after rows were written by other means than `update`."""
        if self.gram is not None:
            self.gram.copy_(bank_gram(self.bank))

    def nll(self, v: Tensor, index: Tensor, neighbors: Tensor | None = None) -> Tensor:
        """See `bank_nll`."""
        return bank_nll(v, self.bank, index, neighbors, temperature=self.temperature)

    def entropy(self, v: Tensor, exclude: Tensor | None = None) -> Tensor:
        """See `bank_entropy`."""
        return bank_entropy(v, self.bank, exclude, temperature=self.temperature)

    def nll_entropy(self, v: Tensor, index: Tensor, neighbors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See `bank_nll_entropy`."""
        return bank_nll_entropy(v, self.bank, index, neighbors, temperature=self.temperature)

    def augmentation_loss(self, v: Tensor, v_aug: Tensor, *, negative_weight: float = 1.0) -> Tensor:
        """See `augmentation_loss`; the bank is read only where no Gram matrix is kept."""
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
            self.gram = kept.to(self.bank.device) if same else bank_gram(self.bank)
        return self
