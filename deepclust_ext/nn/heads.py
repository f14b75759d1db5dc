"""Clustering heads: from a trunk's features to rows of cluster probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from deepclust_ext import _checks as check
from deepclust_ext.nn._seeding import seeded_init
from deepclust_ext.nn.registry import as_features, feature_dims

Which = Literal["main", "over", "both"]


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


class SoftmaxHeads(nn.Module):
    r"""Independent linear softmax heads on one input, as one batched product: :math:`z_s = softmax(W_s h + b_s)`.

    Parameters
    ----------
    in_features : int
        Width of the input.
    n_clusters : int
        K, the width of the softmax.
    n_heads : int
        S, the number of heads.
    gain : float
        Multiplies the initial weights and biases.
    """

    def __init__(self, in_features: int, n_clusters: int, n_heads: int, *, gain: float = 1.0) -> None:
        super().__init__()
        bound = gain * in_features**-0.5
        self.weight = nn.Parameter(torch.empty(n_heads, in_features, n_clusters).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_heads, 1, n_clusters).uniform_(-bound, bound))

    def forward(self, hidden: Tensor) -> Tensor:
        """Return probabilities (S, B, K) of (B, d)."""
        logits = torch.matmul(hidden, self.weight) + self.bias
        # Under autocast the logits may be half; mutual information needs float32 probabilities.
        return torch.softmax(logits, dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))


class MLPHead(nn.Module):
    r"""A feature's head: one hidden layer, and on it the main sub-heads and their over-clustering twins.

    .. math:: z_s = \mathrm{softmax}(W_s\,\mathrm{relu}(\mathrm{bn}(V h)) + b_s), \quad s = 1 \dots S

    That sub-heads and twins share the hidden layer is ours: DHOG has one of each and does not say, IIC has none.

    Parameters
    ----------
    in_features : int
        Width of the feature.
    n_clusters : int
        K, the width of a main softmax.
    n_sub_heads : int
        S, main heads, and as many over-clustering ones.
    over_clusters : int, optional
        Width of an over-clustering softmax; None for no twins.
    hidden : int
        Width of the hidden layer; 0 leaves it out.
    batch_norm : bool
        Batch-norm before the hidden layer's ReLU.
    gain : float
        Multiplies the initial weights of the softmax layers.

    References
    ----------
    DHOG, section 3.3: "Each MLP has a single hidden layer of width 200".
    """

    def __init__(
        self,
        in_features: int,
        n_clusters: int,
        n_sub_heads: int = 1,
        *,
        over_clusters: int | None = None,
        hidden: int = 200,
        batch_norm: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.body: nn.Module = nn.Identity()
        if hidden:
            norm = nn.BatchNorm1d(hidden) if batch_norm else nn.Identity()
            # A bias in front of batch-norm has no effect.
            linear = nn.Linear(in_features, hidden, bias=not batch_norm)
            self.body = nn.Sequential(linear, norm, nn.ReLU(inplace=True))
        width = hidden or in_features
        self.main = SoftmaxHeads(width, n_clusters, n_sub_heads, gain=gain)
        self.over = None if over_clusters is None else SoftmaxHeads(width, over_clusters, n_sub_heads, gain=gain)

    def forward(self, feature: Tensor, which: Which = "both") -> tuple[Tensor | None, Tensor | None]:
        """Return the main (S, B, K) and over-clustering (S, B, K_over) probabilities of a feature (B, d)."""
        hidden = self.body(feature)
        main = None if which == "over" else self.main(hidden)
        over = None if which == "main" or self.over is None else self.over(hidden)
        return main, over


class ClusterNet(nn.Module):
    """A trunk with clustering heads on each of its features.

    Parameters
    ----------
    trunk : nn.Module
        Maps (B, C, H, W) to a list of features, as `build_network` returns it.
    image_shape : (int, int, int) or (int,)
        Channels, height and width of the images, or the width of embeddings.
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
    gain : float
        Multiplies the initial weights of the softmax layers: above 1, clusters are sharper before the first step.
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
    >>> from deepclust_ext.nn import build_network
    >>> trunk = build_network("tiny8", image_shape=(1, 8, 8), n_heads=4)
    >>> net = ClusterNet(trunk, (1, 8, 8), n_clusters=10, over_clusters=50)
    >>> output = net(torch.rand(6, 1, 8, 8))
    >>> output.main.shape, output.over.shape, output.embedding.shape
    (torch.Size([4, 6, 10]), torch.Size([4, 6, 50]), torch.Size([6, 128]))
    """

    def __init__(
        self,
        trunk: nn.Module,
        image_shape: tuple[int, ...],
        n_clusters: int,
        *,
        n_sub_heads: int = 1,
        over_clusters: int | None = None,
        hidden: int = 200,
        batch_norm: bool = True,
        gain: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check.whole_number("ClusterNet", "n_clusters", n_clusters, at_least=1)
        check.whole_number("ClusterNet", "n_sub_heads", n_sub_heads, at_least=1)
        check.whole_number("ClusterNet", "hidden", hidden, at_least=0)
        check.number("ClusterNet", "gain", gain, above=0)
        if over_clusters is not None:
            check.whole_number("ClusterNet", "over_clusters", over_clusters, at_least=1)
        self.trunk = trunk
        self.feature_dims = feature_dims(trunk, image_shape)
        self.n_clusters = n_clusters
        self.n_sub_heads = n_sub_heads
        self.over_clusters = over_clusters
        self.n_heads = len(self.feature_dims) * n_sub_heads

        with seeded_init(seed):
            self.head_modules = nn.ModuleList(
                MLPHead(
                    dim,
                    n_clusters,
                    n_sub_heads,
                    over_clusters=over_clusters,
                    hidden=hidden,
                    batch_norm=batch_norm,
                    gain=gain,
                )
                for dim in self.feature_dims
            )

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the trunk's features [(B, d_1), ..., (B, d_k)] of images (B, C, H, W)."""
        return as_features(self.trunk(images), n_images=images.shape[0])

    def heads(self, features: Sequence[Tensor], which: Which = "both") -> tuple[Tensor | None, Tensor | None]:
        """Return the main (H, B, K) and over-clustering (H, B, K_over) probabilities; None for those not asked for."""
        if which not in ("main", "over", "both"):
            raise ValueError(f"ClusterNet.heads: 'which' must be 'main', 'over' or 'both', got {which!r}")
        if which == "over" and self.over_clusters is None:
            raise ValueError("ClusterNet.heads: 'which' is 'over', but the net was built with over_clusters=None")
        if len(features) != len(self.head_modules):
            raise ValueError(
                f"ClusterNet.heads: 'features' must hold {len(self.head_modules)} features, got {len(features)}"
            )
        pairs = [head(feature, which) for head, feature in zip(self.head_modules, features, strict=True)]
        main = None if which == "over" else torch.cat([pair[0] for pair in pairs])
        over = None if which == "main" or self.over_clusters is None else torch.cat([pair[1] for pair in pairs])
        return main, over

    def outputs(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Return the main heads' probabilities (H, B, K), and the last feature (B, d), of views (B, C, H, W)."""
        features = self.features(views)
        main, _ = self.heads(features, "main")
        assert main is not None  # 'main' asks for them
        return main, features[-1]

    def forward(self, images: Tensor) -> ClusterOutput:
        """Return every head's probabilities, and the last feature, of images (B, C, H, W)."""
        features = self.features(images)
        main, over = self.heads(features)
        assert main is not None  # 'both' asks for them
        return ClusterOutput(main, over, features[-1])
