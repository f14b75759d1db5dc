"""`augmentation_loss` spelled out in plain torch, with a vector of N similarities for each view."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["augmentation_loss"]


def augmentation_loss(
    v: Tensor, v_aug: Tensor, bank: Tensor, *, temperature: float = 0.1, negative_weight: float = 1.0
) -> Tensor:
    """Super-AND's loss of two views' similarities to the bank; see `deepclust_ext.augmentation_loss`."""
    dtype = torch.promote_types(torch.promote_types(v.dtype, v_aug.dtype), torch.float32)
    views = torch.cat([v.to(dtype), v_aug.to(dtype)])
    if len(views) == 0:
        return views.sum()
    similarities = views @ bank.to(dtype).T
    length = similarities.norm(dim=1, keepdim=True)
    # 0 / 0 is 0, with a gradient of 0.
    r = torch.where(length > 0, similarities / torch.where(length > 0, length, 1.0), 0.0)
    logits = r @ r.detach().T / temperature
    count = len(views)
    partner = torch.arange(count, device=views.device).roll(count // 2)
    pair = torch.zeros(count, count, dtype=torch.bool, device=views.device)
    pair[torch.arange(count), partner] = True
    own = torch.eye(count, dtype=torch.bool, device=views.device)
    negative = ~(own | pair)
    weights = torch.where(negative, negative_weight, 1.0).to(dtype).log().masked_fill(own, -torch.inf)
    log_p = logits - (logits + weights).logsumexp(1, keepdim=True)
    most = 1 - torch.finfo(dtype).eps
    losses = torch.where(pair, -log_p, 0.0)
    # log(1 - p) of negatives alone: the partner's p may be 1.
    p = torch.where(negative, log_p, -1.0).exp().clamp_max(most)
    return (losses - torch.where(negative, negative_weight * torch.log1p(-p), 0.0)).sum() / count
