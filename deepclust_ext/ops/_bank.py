"""Checks that the bank's functions share."""

from __future__ import annotations

import torch
from torch import Tensor

from deepclust_ext.ops._common import check_floating

__all__ = ["check_bank", "check_index"]


def check_bank(op: str, bank: object, arg: str, rows: Tensor, least: int = 1) -> Tensor:
    """The bank (N, d) without its gradient, N >= least, where `rows`, called `arg`, are (B, d) and on its device."""
    bank = check_floating(op, "bank", bank).detach()
    if bank.dim() != 2 or bank.shape[0] < least or bank.shape[1] < 1:
        raise ValueError(f"{op}: 'bank' must have shape (N, d) with N >= {least} and d >= 1, got {tuple(bank.shape)}")
    if rows.dim() != 2 or rows.shape[1] != bank.shape[1]:
        raise ValueError(f"{op}: '{arg}' must have shape (B, {bank.shape[1]}) as 'bank' has, got {tuple(rows.shape)}")
    _check_device(op, "bank", bank, arg, rows)
    return bank


def check_index(op: str, arg: str, index: object, of: str, rows: Tensor, dim: int = 1) -> Tensor:
    """Rows of the bank, (B,) or (B, m), for each of `rows`, which are called `of`; the kernel checks their range."""
    if not isinstance(index, Tensor):
        raise TypeError(f"{op}: '{arg}' must be a torch.Tensor, got {type(index).__name__}")
    if index.dtype != torch.int64:
        raise TypeError(f"{op}: '{arg}' must be int64, got {index.dtype}; convert it with .long()")
    if index.dim() != dim or index.shape[0] != rows.shape[0]:
        shape = f"({rows.shape[0]},)" if dim == 1 else f"({rows.shape[0]}, m)"
        raise ValueError(f"{op}: '{arg}' must have shape {shape} as '{of}' has rows, got {tuple(index.shape)}")
    _check_device(op, arg, index, of, rows)
    return index


def _check_device(op: str, arg: str, tensor: Tensor, of: str, rows: Tensor) -> None:
    if tensor.device != rows.device:
        raise ValueError(
            f"{op}: '{arg}' must be on {of}'s device {rows.device}, got {tensor.device}; "
            f"move it with .to({str(rows.device)!r})"
        )
