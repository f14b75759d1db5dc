"""VCAMI's networks: a variational encoder with a map of places, discriminators, a classifier and a Gaussian mixture."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from deepclust_ext.nn._modes import evaluation_mode
from deepclust_ext.nn._seeding import seeded_init
from deepclust_ext.nn.heads import MLPHead
from deepclust_ext.nn.registry import build_network
from deepclust_ext.nn.trunks import BranchedTrunk

# A variance within these bounds keeps every term finite in float32, half-precision products included.
LOG_VARIANCE = (-10.0, 4.0)
# Where it starts: the draw hardly disturbs a code of unit size, and the terms then move it.
_START = -4.0


class Encoded(NamedTuple):
    """What `VCAMINet.encode` returns.

    Attributes
    ----------
    maps : Tensor, (B, C, h, w)
        The map of the trunk's shared blocks, whose places the local term compares with codes.
    mean, log_variance : Tensor, (B, d) float32
        The image's Gaussian of codes; the log-variance lies within `LOG_VARIANCE`.
    """

    maps: Tensor
    mean: Tensor
    log_variance: Tensor


class GlobalScore(nn.Module):
    r"""The global discriminator :math:`T_\omega(x, z)`: two hidden layers on an image's whole map and a code.

    Parameters
    ----------
    in_features : int
        Width of the flattened map.
    latent : int
        d, width of the code.
    units : int
        Width of the hidden layers.
    """

    def __init__(self, in_features: int, latent: int, units: int) -> None:
        super().__init__()
        # One layer on the map and the code joined, as two: an image's part serves its positive and its negative.
        self.of_maps, self.of_codes = nn.Linear(in_features, units), nn.Linear(latent, units, bias=False)
        self.last = nn.Sequential(nn.ReLU(), nn.Linear(units, units), nn.ReLU(), nn.Linear(units, 1))

    def forward(self, maps: Tensor, codes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Score (B,) every map with its code, and with the code of image `others` (B,) int64."""
        images, coded = self.of_maps(maps.flatten(1)), self.of_codes(codes)
        return self.last(images + coded).squeeze(1), self.last(images + coded[others]).squeeze(1)


class LocalScore(nn.Module):
    r"""The local discriminator :math:`T_\psi(x, z)` on a code joined to each place of a map, by 1x1 convolutions.

    Parameters
    ----------
    channels : int
        Of the map.
    latent : int
        d, width of the code.
    units : int
        Width of the two hidden layers.

    References
    ----------
    Hjelm et al., Learning deep representations by mutual information estimation and maximization, 2019, appendix 1A.
    """

    def __init__(self, channels: int, latent: int, units: int) -> None:
        super().__init__()
        self.of_maps, self.of_codes = nn.Linear(channels, units), nn.Linear(latent, units, bias=False)
        self.last = nn.Sequential(nn.ReLU(), nn.Linear(units, units), nn.ReLU(), nn.Linear(units, 1))

    def forward(self, maps: Tensor, codes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Score (B, L) every place with its image's code, and with the code of image `others` (B,) int64."""
        places, coded = self.of_maps(maps.flatten(2).mT), self.of_codes(codes)[:, None]
        return self.last(places + coded).squeeze(2), self.last(places + coded[others]).squeeze(2)


class DotEmbedding(nn.Module):
    """Codes (B, u) and places (B, L, u) brought to where their dot product is the local score.

    Parameters
    ----------
    channels, latent, units
        As in `LocalScore`; `units` is u.
    """

    def __init__(self, channels: int, latent: int, units: int) -> None:
        super().__init__()
        self.of_maps = nn.Sequential(nn.Linear(channels, units), nn.ReLU(), nn.Linear(units, units))
        self.of_codes = nn.Sequential(nn.Linear(latent, units), nn.ReLU(), nn.Linear(units, units))

    def forward(self, maps: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Embed codes (B, d) and maps (B, C, h, w)."""
        return self.of_codes(codes), self.of_maps(maps.flatten(2).mT)


class VCAMINet(nn.Module):
    """Encoder, discriminators, classifier and mixture.

    Parameters
    ----------
    trunk : nn.Module
        A `BranchedTrunk` with one feature, or any module that maps (B, C, H, W) to a pair of a map (B, C', h, w) and a
        feature (B, d').
    image_shape : (int, int, int)
        Channels, height and width of the views.
    n_clusters : int
        K.
    latent : int
        d, the codes' dimensions.
    units : int
        Width of the discriminators.
    hidden : int
        Width of the classifier's hidden layer; 0 makes it linear.
    score : {"dot", "concat"}
        The local discriminator.
    posterior : {"classifier", "vade"}
        Whether a network labels codes, or the mixture itself by Bayes' rule.
    n_classifiers : int
        S, classifiers on one hidden layer, and mixtures.
    over_clusters : int, optional
        Clusters of a twin of each classifier, without a mixture.
    seed : int
        Draws the initial weights; the global random state is left as it was.

    Raises
    ------
    ValueError
        If the trunk's output is not such a pair.

    References
    ----------
    "Variational deep embedding clustering by augmented mutual information maximization". Networks and sizes are ours:
    the poster gives none.

    Examples
    --------
    >>> net = build_vcami_net("tiny8", (1, 8, 8), 10, latent=16)
    >>> encoded = net.encode(torch.rand(6, 1, 8, 8))
    >>> encoded.maps.shape, encoded.mean.shape, net.outputs(torch.rand(6, 1, 8, 8))[0].shape
    (torch.Size([6, 128, 4, 4]), torch.Size([6, 16]), torch.Size([1, 6, 10]))
    """

    centroids: Tensor
    variance: Tensor

    def __init__(
        self,
        trunk: nn.Module,
        image_shape: tuple[int, int, int],
        n_clusters: int,
        *,
        latent: int = 64,
        units: int = 128,
        hidden: int = 200,
        score: Literal["dot", "concat"] = "dot",
        posterior: Literal["classifier", "vade"] = "classifier",
        n_classifiers: int = 1,
        over_clusters: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.trunk, self.dim = trunk, latent
        with evaluation_mode(trunk), torch.no_grad():
            maps, features = self._parts(torch.zeros(2, *image_shape))
        with seeded_init(seed):
            self.to_mean, self.to_log_variance = (
                nn.Linear(features.shape[1], latent),
                nn.Linear(features.shape[1], latent),
            )
            nn.init.constant_(self.to_log_variance.bias, _START)
            self.global_score = GlobalScore(maps[0].numel(), latent, units)
            self.local_score = (DotEmbedding if score == "dot" else LocalScore)(maps.shape[1], latent, units)
            self.classifier = None
            if posterior == "classifier":
                options: dict[str, Any] = {"over_clusters": over_clusters, "hidden": hidden}
                self.classifier = MLPHead(latent, n_clusters, n_classifiers, **options)
            # Equal means would get equal gradients for ever: drawn apart, until k-means puts them where the codes are.
            self.prior_means = nn.Parameter(torch.randn(n_classifiers, n_clusters, latent))
            self.prior_log_variances = nn.Parameter(torch.zeros(n_classifiers, n_clusters, latent))
        # Of k-means on the means, where labels come from there; else 0.
        self.register_buffer("centroids", torch.zeros(n_clusters, latent))
        self.register_buffer("variance", torch.zeros((), dtype=torch.float64))

    def encode(self, views: Tensor) -> Encoded:
        """Encode views (B, C, H, W)."""
        maps, features = self._parts(views)
        mean, log_variance = self.to_mean(features).float(), self.to_log_variance(features).float()
        return Encoded(maps, mean, log_variance.clamp(*LOG_VARIANCE))

    def mixtures(self) -> tuple[Tensor, Tensor]:
        """The classes' means and log-variances (S, K, d), the latter within bounds."""
        return self.prior_means, self.prior_log_variances.clamp(*LOG_VARIANCE)

    @torch.no_grad()
    def start_mixture(self, which: int, clusters: Tensor, means: Tensor, variances: Tensor, classes: Tensor) -> None:
        """Put class `classes[k]` of a mixture where cluster k is, given clusters (N,), means, variances (N, d)."""
        members = nn.functional.one_hot(clusters, len(classes)).to(means).T
        sizes = members.sum(1, keepdim=True)
        # A cluster that is left empty stays where it was drawn.
        filled = sizes[:, 0] > 0
        centroids = members @ means / sizes.clamp_min(1.0)
        # Of the codes that are drawn: the spread of the means, and the variance around each.
        spread = members @ ((means - centroids[clusters]).square() + variances) / sizes.clamp_min(1.0)
        self.prior_means[which, classes[filled]] = centroids[filled]
        self.prior_log_variances[which, classes[filled]] = spread[filled].log().clamp(*LOG_VARIANCE)

    def classify(self, codes: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return probabilities (S, B, K), float32, of codes (B, d), and the twins' (S, B, K_over) if there are any."""
        if self.classifier is not None:
            main, over = self.classifier(codes)
            return main, over
        # Bayes' rule with equal priors, in log-space: densities of many dimensions underflow.
        means, log_variances = (part.double() for part in self.mixtures())
        precisions, codes = torch.exp(-log_variances), codes.double()
        scaled = precisions * means
        energies = codes.square() @ precisions.mT - 2.0 * codes @ scaled.mT
        energies = energies + (scaled * means + log_variances).sum(2)[:, None]
        return torch.softmax(-0.5 * energies, dim=2).float(), None

    def features(self, views: Tensor) -> Tensor:
        """Return the means (B, d) of views (B, C, H, W)."""
        return self.encode(views).mean

    def outputs(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities (S, B, K) and means (B, d) of views; (1, B, K) where k-means gives the labels."""
        means = self.features(views)
        if self.variance == 0:
            return self.classify(means)[0], means
        distances = torch.cdist(means.double(), self.centroids.double(), compute_mode="donot_use_mm_for_euclid_dist")
        return torch.softmax(-distances.square() / (2.0 * self.variance), dim=1).float()[None], means

    def _parts(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """The map and the feature of views."""
        trunk = self.trunk
        parts: Any = trunk.map_and_feature(views) if isinstance(trunk, BranchedTrunk) else trunk(views)
        if not (isinstance(parts, (tuple, list)) and [getattr(part, "ndim", 0) for part in parts] == [4, 2]):
            raise ValueError(
                "VCAMINet: 'trunk' must map images to a pair of a map (B, C, h, w) and a feature (B, d), or be one of "
                f"build_network's that has blocks in parallel, got {type(trunk).__name__}"
            )
        return parts[0], parts[1]


def build_vcami_net(
    network: str | nn.Module,
    view_shape: tuple[int, int, int],
    n_clusters: int,
    *,
    width: float = 1.0,
    trunk_seed: int = 0,
    **options: Any,
) -> VCAMINet:
    """Put VCAMI's heads on a network by name ("auto", "small28", "tiny8", "resnet18"), or on a module as it is.

    Parameters
    ----------
    network, width, trunk_seed
        As in `build_network`.
    view_shape : (int, int, int)
        Channels, height and width of the views.
    n_clusters : int
        K.
    **options
        Of `VCAMINet`.
    """
    trunk = (
        build_network(network, image_shape=view_shape, width=width, seed=trunk_seed, n_heads=1)
        if isinstance(network, str)
        else network
    )
    return VCAMINet(trunk, view_shape, n_clusters, **options)
