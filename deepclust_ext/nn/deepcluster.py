"""DeepCluster's network: a classifier of pseudo-labels, and the space its features are clustered in."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from deepclust_ext.nn.feature_space import FeatureSpace
from deepclust_ext.nn.pseudo import PseudoLabelNet, sobel_shape
from deepclust_ext.nn.registry import build_network


class DeepClusterNet(PseudoLabelNet):
    """`PseudoLabelNet` with a `FeatureSpace`; arguments of both.

    Parameters
    ----------
    *arguments, **options
        Of `PseudoLabelNet`.
    n_components : int or None
        Of `FeatureSpace`.
    """

    def __init__(self, *arguments: Any, n_components: int | None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.space = FeatureSpace(self.dim, self.head.out_features, n_components)

    def body_parameters(self) -> list[nn.Parameter]:
        """All but the head's."""
        return [parameter for name, parameter in self.named_parameters() if not name.startswith("head.")]

    def outputs(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Return the clusters' probabilities (1, B, K), and the feature (B, d), of views (B, C, H, W)."""
        features = self.features(views)
        return self.space.probabilities(features)[None], features


def build_deepcluster_net(
    network: str | nn.Module,
    view_shape: tuple[int, int, int],
    n_clusters: int,
    *,
    width: float,
    sobel: bool,
    n_components: int | None,
    seed: int,
) -> DeepClusterNet:
    """Put a head and a feature space on a network by name, or on a module, which is used as it is.

    Parameters
    ----------
    network : str or nn.Module
        A name of `build_network`, any module, or "auto": see `automatic_network`.
    view_shape : (int, int, int)
        Channels, height and width of the views.
    n_clusters, sobel, n_components
        Of `DeepClusterNet`.
    width, seed
        Of `build_network`.

    Raises
    ------
    ValueError
        If there are more components than dimensions.
    """
    if isinstance(network, str) and network == "auto":
        network = automatic_network(view_shape)
    # A named network with branches is asked for one of them.
    options: dict[str, Any] = {"n_heads": 1} if isinstance(network, str) else {}
    shape = sobel_shape(view_shape) if sobel else view_shape
    trunk = build_network(network, image_shape=shape, width=width, seed=seed, **options)
    net = DeepClusterNet(trunk, view_shape, n_clusters, sobel=sobel, n_components=n_components)
    check_components(n_components, "the feature's dimensions", net.dim)
    return net


def check_components(n_components: int | None, what: str, most: int) -> None:
    """Refuse more components than there can be."""
    if n_components is not None and n_components > most:
        raise ValueError(f"DeepCluster: 'n_components' must be at most {what} ({most}), got {n_components}")


def automatic_network(image_shape: tuple[int, int, int]) -> str:
    """The name of a network for images (C, H, W): of those DeepCluster was studied with, and our smallest for less."""
    channels, height, width = image_shape
    if min(height, width) < 12:
        return "tiny8"
    if (channels == 1 and max(height, width) <= 32) or min(height, width) < 15:
        return "lenet5"
    return "alexnet-small" if min(height, width) < 63 else "alexnet"
