"""`dhog_loss` spelled out in plain torch, pair by pair: the tests' oracle."""

from __future__ import annotations

import torch
from torch import Tensor

from deepclust_ext.reference.mi_loss import joint_loss

__all__ = ["dhog_loss"]


def dhog_loss(
    probs: Tensor,
    *,
    alpha: float = 0.05,
    pooling: str = "pooled",
    push_norm: str = "index",
    lamb: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, pull (H,) and push (H, H) of probs (A, H, n, C); see `deepclust_ext.dhog_loss`."""
    probs = probs if probs.dtype == torch.float64 else probs.float()
    views, heads = probs.shape[:2]

    pull = []
    for i in range(heads):
        joints = {(a, b): probs[a, i].T @ probs[b, i] for a in range(views) for b in range(views) if a != b}
        if pooling == "pooled":
            pull.append(-joint_loss(torch.stack(list(joints.values())).sum(0), lamb))
        else:
            means = [(joint + joint.T) / 2 for (a, b), joint in joints.items() if a < b]
            pull.append(-joint_loss(torch.stack(means), lamb).mean())

    loss = -torch.stack(pull).mean()
    push = probs.new_zeros(heads, heads)
    for i in range(1, heads):
        for j in range(i):
            joint = torch.stack([probs[a, i].T @ probs[a, j].detach() for a in range(views)]).sum(0)
            mutual_information = -joint_loss(joint)
            push[i, j] = mutual_information.detach()
            loss = loss + alpha * mutual_information / (i + 1 if push_norm == "index" else i)
    return loss, torch.stack(pull).detach(), push
