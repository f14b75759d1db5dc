"""A network with a classifier of pseudo-labels on its last feature."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from deepclust_ext.nn.registry import feature_dims
from deepclust_ext.nn.sobel import Sobel
from deepclust_ext.nn.standardised import StandardisedNet


class PseudoLabelNet(StandardisedNet):
    r"""Standardise the images, take their edges if asked to, and map them to a feature; a linear head on top.

    Parameters
    ----------
    trunk : nn.Module
        As `build_network` returns it, for `sobel_shape(image_shape)` if `sobel`; its last feature is used. Where it
        `ends_before_relu`, the head sees the feature's ReLU.
    image_shape : (int, int, int)
        Channels, height and width of the images.
    n_labels : int
        Outputs of the head.
    sobel : bool
        Whether `Sobel` comes before the trunk.
    """

    def __init__(self, trunk: nn.Module, image_shape: tuple[int, int, int], n_labels: int, *, sobel: bool) -> None:
        super().__init__(image_shape[0])
        self.sobel = Sobel() if sobel else None
        self.trunk = trunk
        self.dim = feature_dims(trunk, sobel_shape(image_shape) if sobel else image_shape)[-1]
        self.head = nn.Linear(self.dim, n_labels)
        if hasattr(trunk, "probe_layers"):
            self.probe_layers = tuple(f"trunk.{name}" for name in cast(Iterable[str], trunk.probe_layers))

    @torch.no_grad()
    def reset_head(self, generator: torch.Generator) -> None:
        """Draw the head anew: weights from N(0, 0.01), biases 0."""
        weight = torch.empty(self.head.weight.shape).normal_(0.0, 0.01, generator=generator)
        self.head.weight.copy_(weight)
        self.head.bias.zero_()

    def features(self, views: Tensor) -> Tensor:
        """Return the last feature (B, d) of views (B, C, H, W) in [0, 1]."""
        inputs = self.standardised(views)
        if self.sobel is not None:
            inputs = self.sobel(inputs)
        output = self.trunk(inputs)
        feature: Tensor = output if isinstance(output, Tensor) else output[-1]
        return feature

    def forward(self, views: Tensor) -> Tensor:
        """Return the head's logits (B, n_labels)."""
        feature = self.features(views)
        if getattr(self.trunk, "ends_before_relu", False):
            feature = torch.relu(feature)
        logits: Tensor = self.head(feature)
        return logits


def sobel_shape(image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """What `Sobel` makes of images: two gradients of the same size."""
    return (2, *image_shape[1:])
