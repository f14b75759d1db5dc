"""Networks side by side that share nothing, each for one feature."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from deepclust_ext.nn.registry import as_features


class SeparateTrunks(nn.Module):
    """Several networks as one trunk: the feature of each, in their order.

    Heads on blocks that are shared see what the easiest of their groupings has made of an image; on a network of its
    own, a head that is pushed from that grouping can be deaf to it from the first layer on.

    Parameters
    ----------
    trunks : iterable of nn.Module
        Each maps (B, C, H, W) to one feature (B, d), or a list of one.

    Examples
    --------
    >>> import torch
    >>> from deepclust_ext.nn import build_network
    >>> trunk = SeparateTrunks(build_network("tiny8", image_shape=(1, 8, 8), n_heads=1, seed=s) for s in range(2))
    >>> [feature.shape[1] for feature in trunk(torch.zeros(2, 1, 8, 8))]
    [128, 128]
    """

    def __init__(self, trunks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.trunks = nn.ModuleList(trunks)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features [(B, d_1), ..., (B, d_k)] of images (B, C, H, W)."""
        return [feature for trunk in self.trunks for feature in as_features(trunk(images), n_images=len(images))]
