"""`pca_whiten` by a singular value decomposition: the tests' oracle."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["pca_whiten"]


def pca_whiten(x: Tensor, n_components: int, *, eps: float = 1e-5, l2: bool = True) -> Tensor:
    """Features of x (n, d); the sign of every column is arbitrary. See `deepclust_ext.pca_whiten`."""
    x = x if x.dtype == torch.float64 else x.float()
    centred = x - x.mean(0)
    _, singular, components = torch.linalg.svd(centred, full_matrices=False)
    variances = singular.square() / (len(x) - 1)
    scale = (variances[:n_components] + eps * variances[0]).rsqrt()
    features = (centred @ components[:n_components].T) * scale
    return torch.nn.functional.normalize(features, dim=1) if l2 else features
