"""`dim_jsd_loss` spelled out: every score is stored."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["dim_jsd_loss"]


def dim_jsd_loss(codes: Tensor, maps: Tensor) -> Tensor:
    """See `deepclust_ext.dim_jsd_loss`."""
    scores = torch.einsum("iu,jlu->ijl", codes, maps)
    others = ~torch.eye(len(codes), dtype=torch.bool, device=codes.device)
    positives = scores.diagonal(dim1=0, dim2=1)
    return -functional.logsigmoid(positives).mean() - functional.logsigmoid(-scores[others]).mean()
