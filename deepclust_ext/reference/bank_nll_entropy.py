"""The bank's losses spelled out in plain torch, with all B x N logits: the tests' oracle."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["bank_entropy", "bank_nll", "bank_nll_entropy"]


def _logits(v: Tensor, bank: Tensor, temperature: float) -> Tensor:
    dtype = torch.promote_types(torch.promote_types(v.dtype, bank.dtype), torch.float32)
    return v.to(dtype) @ bank.to(dtype).T / temperature


def _rows(logits: Tensor, indices: Tensor) -> Tensor:
    """Where in (B, N) the rows (B, m) stand that are not negative."""
    columns = torch.arange(logits.shape[1], device=logits.device)
    return (indices.unsqueeze(-1) == columns).any(1)


def bank_nll(
    v: Tensor, bank: Tensor, index: Tensor, neighbors: Tensor | None = None, *, temperature: float = 0.1
) -> Tensor:
    """Minus the log of the probability of the rows at index and neighbors; see `deepclust_ext.bank_nll`."""
    logits = _logits(v, bank, temperature)
    right = _rows(logits, index.unsqueeze(1) if neighbors is None else torch.cat([index.unsqueeze(1), neighbors], 1))
    return logits.logsumexp(1) - logits.masked_fill(~right, -torch.inf).logsumexp(1)


def bank_entropy(v: Tensor, bank: Tensor, exclude: Tensor | None = None, *, temperature: float = 0.1) -> Tensor:
    """Entropy of the softmax without the rows at exclude; see `deepclust_ext.bank_entropy`."""
    logits = _logits(v, bank, temperature)
    left_out = torch.zeros_like(logits, dtype=torch.bool)
    if exclude is not None:
        left_out = _rows(logits, exclude.unsqueeze(1))
    logits = logits.masked_fill(left_out, -torch.inf)
    # Rows without any probability are out before the softmax: its gradient would be NaN.
    nothing = left_out.all(1, keepdim=True)
    log_p = logits.masked_fill(nothing, 0.0).log_softmax(1)
    terms = torch.where(left_out, torch.zeros_like(log_p), log_p.exp() * log_p.masked_fill(left_out, 0.0))
    return -terms.sum(1)


def bank_nll_entropy(
    v: Tensor, bank: Tensor, index: Tensor, neighbors: Tensor | None = None, *, temperature: float = 0.1
) -> tuple[Tensor, Tensor]:
    """Both, the entropy without the rows at index; see `deepclust_ext.bank_nll_entropy`."""
    nll = bank_nll(v, bank, index, neighbors, temperature=temperature)
    return nll, bank_entropy(v, bank, index, temperature=temperature)
