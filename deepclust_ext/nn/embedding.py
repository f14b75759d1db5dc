"""Super-AND's network: a tower for the pixels and one for their edges, together one embedding on the sphere."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepclust_ext.nn._seeding import seeded_init
from deepclust_ext.nn.feature_space import FeatureSpace
from deepclust_ext.nn.pseudo import sobel_shape
from deepclust_ext.nn.registry import build_network, feature_dims
from deepclust_ext.nn.sobel import Sobel
from deepclust_ext.nn.standardised import StandardisedNet


class EmbeddingNet(StandardisedNet):
    r"""Embed images by one tower or two, and tell clusters by the nearest of centroids.

    .. math:: f(x) = \frac{u}{\lVert u \rVert}, \qquad u = W [g(x), h(S(x))] + b

    with g the tower of the standardised pixels, h that of their edges S(x) (see `Sobel`), if there is one.

    Parameters
    ----------
    pixels : nn.Module
        g, as `build_network` returns it for the images; its last feature is used, by its ReLU where it
        `ends_before_relu`.
    edges : nn.Module or None
        h, for images of two channels.
    image_shape : (int, int, int)
        Channels, height and width of the images.
    dim : int
        Of the embedding.
    n_clusters : int
        K, of the `FeatureSpace` whose centroids are put in once training has ended.

    References
    ----------
    Super-AND, arXiv 2002.12158, figure 2.
    """

    def __init__(
        self,
        pixels: nn.Module,
        edges: nn.Module | None,
        image_shape: tuple[int, int, int],
        *,
        dim: int,
        n_clusters: int,
    ) -> None:
        super().__init__(image_shape[0])
        self.pixels, self.edges, self.sobel, self.dim = pixels, edges, Sobel(), dim
        width = feature_dims(pixels, image_shape)[-1]
        width += 0 if edges is None else feature_dims(edges, sobel_shape(image_shape))[-1]
        self.last = nn.Linear(width, dim)
        self.space = FeatureSpace(dim, n_clusters, None)

    def features(self, views: Tensor) -> Tensor:
        """Return the embedding (B, dim), L2-normalised, of views (B, C, H, W) in [0, 1]."""
        inputs = self.standardised(views)
        found = [_feature(self.pixels, inputs)]
        if self.edges is not None:
            found.append(_feature(self.edges, self.sobel(inputs)))
        return nn.functional.normalize(self.last(torch.cat(found, dim=1)), dim=1)

    def outputs(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Return the clusters' probabilities (1, B, K), and the embedding (B, dim), of views (B, C, H, W)."""
        features = self.features(views)
        return self.space.probabilities(features)[None], features


def _feature(tower: nn.Module, inputs: Tensor) -> Tensor:
    """The last feature (B, d) of a tower."""
    output = tower(inputs)
    feature: Tensor = output if isinstance(output, Tensor) else output[-1]
    return torch.relu(feature) if getattr(tower, "ends_before_relu", False) else feature


def build_embedding_net(
    network: str | nn.Module,
    view_shape: tuple[int, int, int],
    n_clusters: int,
    *,
    dim: int,
    width: float,
    sobel: bool,
    seed: int,
) -> EmbeddingNet:
    """Build the towers by name, or take a module as the only one.

    Parameters
    ----------
    network : str or nn.Module
        A name of `build_network`, for each tower; or any module, which is used as it is.
    view_shape : (int, int, int)
        Channels, height and width of the views.
    n_clusters, dim
        Of `EmbeddingNet`.
    width, seed
        Of `build_network`.
    sobel : bool
        Whether there is a tower for edges.

    Raises
    ------
    ValueError
        If a module is given where two towers are to be built, or images without 1 or 3 channels where edges are.
    """
    if sobel and not isinstance(network, str):
        raise ValueError(
            "SuperAND: 'network' must be a name where 'sobel' is True, as two towers are built, "
            f"got {type(network).__name__}"
        )
    if sobel and view_shape[0] not in (1, 3):
        raise ValueError(f"SuperAND: 'sobel' must be False for images that are neither grey nor RGB, got {view_shape}")
    # Of a network with branches only one is wanted.
    options = {"n_heads": 1} if isinstance(network, str) else {}
    pixels = build_network(network, image_shape=view_shape, width=width, seed=seed, **options)
    edges = None
    if sobel:
        edges = build_network(network, image_shape=sobel_shape(view_shape), width=width, seed=seed + 1, **options)
    with seeded_init(seed + 2):
        return EmbeddingNet(pixels, edges, view_shape, dim=dim, n_clusters=n_clusters)
