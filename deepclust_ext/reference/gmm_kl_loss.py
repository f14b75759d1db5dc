"""`gmm_kl_loss` spelled out: every class of every sample in every dimension."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["gmm_kl_loss"]


def gmm_kl_loss(
    mean: Tensor,
    log_variance: Tensor,
    probs: Tensor,
    prior_means: Tensor,
    prior_log_variances: Tensor,
    *,
    sample: Tensor | None = None,
) -> Tensor:
    """See `deepclust_ext.gmm_kl_loss`."""
    variances = log_variance[:, None].exp()
    if sample is None:
        squares, own = variances + (mean[:, None] - prior_means).square(), torch.ones_like(variances)
    else:
        squares, own = (sample[:, None] - prior_means).square(), (sample - mean)[:, None].square() / variances
    divergences = squares / prior_log_variances.exp() + prior_log_variances - log_variance[:, None] - own
    return (probs * divergences.mean(-1) / 2).sum(-1).mean()
