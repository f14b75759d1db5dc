"""The trunk of heads on frozen features: a projection found once, and layers that grow deeper head by head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepclust_ext import _checks as check
from deepclust_ext.nn._seeding import seeded_init
from deepclust_ext.ops.pca_whiten import pca_whiten

# Rows whose spread is summed at a time: the float64 copies stay small.
_ROWS = 4096


class RowTrunk(nn.Module):
    r"""Map embeddings (B, d) to features from simple to complex, for a head on each.

    .. math:: f_1 = \sqrt{p}\, P(x), \qquad f_{i+1} = f_i + W_i\,\mathrm{relu}(\mathrm{bn}(V_i f_i))

    P is PCA-whitening to p dimensions and unit length, or, without it, each dimension standardised and p = 1. It is
    found by `fit` and not trained. The first head is linear in it; each later one has a residual block more.

    Parameters
    ----------
    dim : int
        d.
    n_components : int, optional
        p; None standardises instead.
    n_heads : int
        Features.
    hidden : int
        Width of the blocks.
    seed : int
        Draws the blocks' initial weights; the global random state is left as it was.

    Examples
    --------
    >>> trunk = RowTrunk(768, n_components=64, n_heads=2)
    >>> [feature.shape[1] for feature in trunk(torch.zeros(5, 768))]
    [64, 64]
    """

    mean: Tensor
    components: Tensor
    scale: Tensor

    def __init__(
        self, dim: int, *, n_components: int | None = None, n_heads: int = 1, hidden: int = 512, seed: int = 0
    ) -> None:
        super().__init__()
        check.whole_number("RowTrunk", "n_heads", n_heads, at_least=1)
        self.n_components = n_components
        width = dim if n_components is None else n_components
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(width))
        if n_components is not None:
            self.register_buffer("components", torch.zeros(n_components, dim))
        with seeded_init(seed):
            self.blocks = nn.ModuleList(
                nn.Sequential(
                    nn.Linear(width, hidden, bias=False),
                    nn.BatchNorm1d(hidden),
                    nn.ReLU(inplace=True),
                    nn.Linear(hidden, width),
                )
                for _ in range(n_heads - 1)
            )

    @torch.no_grad()
    def fit(self, rows: Tensor) -> None:
        """Find the projection of rows (N, d)."""
        if self.n_components is not None:
            found = pca_whiten(rows, self.n_components)[1]
            for name in ("mean", "components", "scale"):
                getattr(self, name).copy_(getattr(found, name))
            return
        sums = torch.zeros(2, rows.shape[1], dtype=torch.float64, device=rows.device)
        for part in rows.split(_ROWS):
            sums += torch.stack([part.double().sum(0), part.double().square().sum(0)])
        mean, square = sums / len(rows)
        deviation = (square - mean.square()).clamp_min(0).sqrt()
        self.mean.copy_(mean)
        # A constant dimension carries nothing: it becomes 0.
        self.scale.copy_(torch.where(deviation > 1e-6 * deviation.amax(), 1.0 / deviation, 0.0))

    def forward(self, rows: Tensor) -> list[Tensor]:
        """Return the features [(B, p), ...] of rows (B, d)."""
        if self.n_components is None:
            feature = (rows - self.mean) * self.scale
        else:
            # `PCAWhitening` without its look for NaN at every step, which a fit's data have had already.
            whitened = ((rows - self.mean) @ self.components.T) * self.scale
            feature = nn.functional.normalize(whitened, dim=1) * self.n_components**0.5
        features = [feature]
        for block in self.blocks:
            features.append(features[-1] + block(features[-1]))
        return features
