"""`bank_update_` spelled out in plain torch."""

from __future__ import annotations

from torch import Tensor

__all__ = ["bank_update_"]


def bank_update_(bank: Tensor, index: Tensor, features: Tensor, *, momentum: float = 0.5) -> Tensor:
    """Move rows towards features, one after another, in place; see `deepclust_ext.bank_update_`."""
    for row, feature in zip(index.tolist(), features.double(), strict=True):
        mixed = momentum * bank[row].double() + (1 - momentum) * feature
        largest = mixed.abs().max()
        if largest > 0:  # by the largest first: squares neither over- nor underflow
            mixed = mixed / largest
            mixed = mixed / mixed.norm()
        bank[row] = mixed.to(bank.dtype)
    return bank
