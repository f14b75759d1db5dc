"""`mi_loss` spelled out in plain torch: the tests' oracle and the benchmarks' opponent."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["joint_loss", "mi_loss"]


def joint_loss(joint: Tensor, lamb: float = 1.0) -> Tensor:
    """Minus the mutual information of unnormalised joints (..., C, D); entries at 0 or below pass no gradient."""
    positive = ~(joint <= 0)  # NaN stays, and shows
    # Two masks: the first keeps 0-entries out of the sums' gradient, the second keeps log away from 0.
    joint = torch.where(positive, joint, torch.zeros_like(joint))
    total = joint.sum((-2, -1), keepdim=True)
    p = joint / torch.where(total == 0, torch.ones_like(total), total)
    rows, cols = p.sum(-1, keepdim=True), p.sum(-2, keepdim=True)

    def log(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, torch.ones_like(x)).log()

    return -(p * (log(p) - lamb * log(rows) - lamb * log(cols))).sum((-2, -1))


def mi_loss(p: Tensor, q: Tensor, *, lamb: float = 1.0, symmetric: bool = True) -> Tensor:
    """Minus the mutual information of p (..., n, C) and q (..., n, D); see `deepclust_ext.mi_loss`."""
    dtype = torch.promote_types(p.dtype, q.dtype)
    dtype = dtype if dtype == torch.float64 else torch.float32
    joint = p.to(dtype).transpose(-1, -2) @ q.to(dtype)
    if symmetric:
        joint = (joint + joint.transpose(-1, -2)) / 2
    return joint_loss(joint, lamb)
