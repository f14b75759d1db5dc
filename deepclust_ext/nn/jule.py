"""JULE's network with its embedding on the sphere, and the centroids of the clusters there."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from deepclust_ext.nn.feature_space import FeatureSpace
from deepclust_ext.nn.registry import build_network, feature_dims


class JULENet(nn.Module):
    """A network whose L2-normalised last feature is the embedding, and the clusters' centroids in it.

    Parameters
    ----------
    trunk : nn.Module
        As `build_network` returns it; its last feature is used.
    image_shape : (int, int, int)
        Channels, height and width of the images.
    n_clusters : int
        K.
    channels_last : bool
        Let images go through it channels-last, which a CPU convolves in two thirds of the time. Modules that flatten
        by `view` do not take them so.
    """

    def __init__(
        self, trunk: nn.Module, image_shape: tuple[int, int, int], n_clusters: int, *, channels_last: bool = False
    ) -> None:
        super().__init__()
        self.format = torch.channels_last if channels_last else torch.preserve_format
        self.trunk = trunk.to(memory_format=self.format)
        self.dim = feature_dims(trunk, image_shape)[-1]
        self.space = FeatureSpace(self.dim, n_clusters, None)
        if hasattr(trunk, "probe_layers"):
            self.probe_layers = tuple(f"trunk.{name}" for name in cast(tuple[str, ...], trunk.probe_layers))

    def features(self, views: Tensor) -> Tensor:
        """Return the embedding (B, d) of views (B, C, H, W) in [0, 1]; a feature of zeros stays so."""
        output = self.trunk(views.to(memory_format=self.format))
        feature: Tensor = output if isinstance(output, Tensor) else output[-1]
        return nn.functional.normalize(feature, dim=1)

    def forward(self, views: Tensor) -> Tensor:
        """Return the embedding (B, d)."""
        return self.features(views)

    def outputs(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Return the clusters' probabilities (1, B, K), and the embedding (B, d), of views (B, C, H, W)."""
        features = self.features(views)
        return self.space.probabilities(features)[None], features


def build_jule_net(
    network: str | nn.Module,
    view_shape: tuple[int, int, int],
    n_clusters: int,
    *,
    width: float,
    dim: int,
    seed: int,
) -> JULENet:
    """Make a `JULENet` of a network by name, or of a module, which is used as it is; `dim` is of the name "jule"."""
    # A named network with branches is asked for one of them.
    options: dict[str, Any] = {"n_heads": 1} if isinstance(network, str) else {}
    options |= {"dim": dim} if network == "jule" else {}
    trunk = build_network(network, image_shape=view_shape, width=width, seed=seed, **options)
    return JULENet(trunk, view_shape, n_clusters, channels_last=isinstance(network, str))
