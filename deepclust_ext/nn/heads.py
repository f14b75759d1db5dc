"""Clustering heads: from a trunk's features to rows of cluster probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from deepclust_ext.nn._seeding import seeded_init
from deepclust_ext.nn.registry import as_features, feature_dims


class ClusterOutput(NamedTuple):
    """What `ClusterNet` returns; H counts heads, B images.

    Attributes
    ----------
    main : Tensor, (H, B, K) float
        Cluster probabilities, rows sum to 1; head f * n_sub_heads + s is sub-head s of feature f.
    over : Tensor, (H, B, K_over) float, or None
        The over-clustering heads' probabilities, in the same order.
    embedding : Tensor, (B, d)
        The last feature.
    """

    main: Tensor
    over: Tensor | None
    embedding: Tensor


class MLPHeads(nn.Module):
    r"""Independent softmax heads on one feature, computed side by side.

    .. math:: z_s = \mathrm{softmax}(W_s\,\mathrm{relu}(\mathrm{bn}(V_s h + c_s)) + b_s), \quad s = 1 \dots S

    The hidden layers of all heads are one matrix product and the output layers one batched product: the same
    numbers as S separate heads, in a few calls instead of a few per head.

    Parameters
    ----------
    in_features : int
        Width of the feature.
    n_clusters : int
        K, the width of the softmax.
    n_heads : int
        S, the number of independent heads.
    hidden : int
        Width of each head's hidden layer; 0 makes the heads linear.
    batch_norm : bool
        Batch-norm before the ReLU of the hidden layer.

    References
    ----------
    DHOG, section 3.3: "Each MLP has a single hidden layer of width 200".
    """

    def __init__(
        self,
        in_features: int,
        n_clusters: int,
        n_heads: int = 1,
        *,
        hidden: int = 200,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.hidden = hidden
        self.body: nn.Module = nn.Identity()
        if hidden:
            width = n_heads * hidden
            norm = nn.BatchNorm1d(width) if batch_norm else nn.Identity()
            # A bias in front of batch-norm has no effect.
            linear = nn.Linear(in_features, width, bias=not batch_norm)
            self.body = nn.Sequential(linear, norm, nn.ReLU(inplace=True))
        fan_in = hidden or in_features
        bound = fan_in**-0.5
        self.weight = nn.Parameter(torch.empty(n_heads, fan_in, n_clusters).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_heads, 1, n_clusters).uniform_(-bound, bound))

    def forward(self, feature: Tensor) -> Tensor:
        """Return probabilities (S, B, K) of a feature (B, d)."""
        hidden = self.body(feature)
        if self.hidden:
            hidden = hidden.unflatten(1, (self.n_heads, self.hidden)).transpose(0, 1)
        logits = torch.matmul(hidden, self.weight) + self.bias
        # Under autocast the logits may be half; mutual information needs float32 probabilities.
        return torch.softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))


class ClusterNet(nn.Module):
    """A trunk with clustering heads on each of its features.

    Parameters
    ----------
    trunk : nn.Module
        Maps (B, C, H, W) to a list of features, as `build_network` returns it.
    image_shape : (int, int, int)
        Channels, height and width of the images.
    n_clusters : int
        K, clusters per main head.
    n_sub_heads : int
        Independent heads on each feature (IIC's sub-heads; 1 for DHOG).
    over_clusters : int, optional
        K_over; if given, each head gets an over-clustering twin.
    hidden : int
        Width of each head's hidden layer; 0 makes the heads linear.
    batch_norm : bool
        Batch-norm in the heads' hidden layer.
    seed : int
        Draws the heads' initial weights; the global random state is left as it was.

    Raises
    ------
    ValueError
        If a count is out of range, or the trunk's output is not a list of features.

    References
    ----------
    DHOG, section 3.3 and Figure 1; IIC (Ji et al., 2019), section 3 for sub-heads and over-clustering.

    Examples
    --------
    >>> trunk = build_network("tiny8", image_shape=(1, 8, 8), n_heads=4)
    >>> net = ClusterNet(trunk, (1, 8, 8), n_clusters=10, over_clusters=50)
    >>> output = net(torch.rand(6, 1, 8, 8))
    >>> output.main.shape, output.over.shape, output.embedding.shape
    (torch.Size([4, 6, 10]), torch.Size([4, 6, 50]), torch.Size([6, 128]))
    """

    def __init__(
        self,
        trunk: nn.Module,
        image_shape: tuple[int, int, int],
        n_clusters: int,
        *,
        n_sub_heads: int = 1,
        over_clusters: int | None = None,
        hidden: int = 200,
        batch_norm: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("n_clusters", n_clusters, 1),
            ("n_sub_heads", n_sub_heads, 1),
            ("over_clusters", 1 if over_clusters is None else over_clusters, 1),
            ("hidden", hidden, 0),
        ):
            if value < least:
                raise ValueError(f"ClusterNet: {name!r} must be at least {least}, got {value!r}")
        self.trunk = trunk
        self.feature_dims = feature_dims(trunk, image_shape)
        self.n_clusters = n_clusters
        self.n_sub_heads = n_sub_heads
        self.over_clusters = over_clusters
        self.n_heads = len(self.feature_dims) * n_sub_heads

        def heads(n_outputs: int) -> nn.ModuleList:
            return nn.ModuleList(
                MLPHeads(dim, n_outputs, n_sub_heads, hidden=hidden, batch_norm=batch_norm)
                for dim in self.feature_dims
            )

        with seeded_init(seed):
            self.main_heads = heads(n_clusters)
            self.over_heads = None if over_clusters is None else heads(over_clusters)

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the trunk's features [(B, d_1), ..., (B, d_k)] of images (B, C, H, W)."""
        return as_features(self.trunk(images), n_images=images.shape[0])

    def heads(self, features: Sequence[Tensor], which: Literal["main", "over"] = "main") -> Tensor:
        """Return probabilities (H, B, K) of features, from the main or the over-clustering heads."""
        if which not in ("main", "over"):
            raise ValueError(f"ClusterNet.heads: 'which' must be 'main' or 'over', got {which!r}")
        modules = self.main_heads if which == "main" else self.over_heads
        if modules is None:
            raise ValueError(
                "ClusterNet.heads: 'which' is 'over', but the net was built with over_clusters=None"
            )
        if len(features) != len(modules):
            raise ValueError(
                f"ClusterNet.heads: 'features' must hold {len(modules)} features, got {len(features)}"
            )
        return torch.cat([head(feature) for head, feature in zip(modules, features, strict=True)])

    def forward(self, images: Tensor) -> ClusterOutput:
        """Return every head's probabilities, and the last feature, of images (B, C, H, W)."""
        features = self.features(images)
        over = None if self.over_heads is None else self.heads(features, "over")
        return ClusterOutput(self.heads(features), over, features[-1])
