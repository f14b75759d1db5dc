"""Where items are among the clusters: the own one, how sure that is, how far, and which would be next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deepclust_ext.nn.nearest_centroid import squared_distances
from deepclust_ext.ops.cut import RowBlocks, centroids_of
from deepclust_ext.training.regrouping import Regrouping

_CHUNK = 4096

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


class Placement(NamedTuple):
    """Items among clusters; arrays of N, and NaN or -1 where there is no second cluster."""

    clusters: Labels
    """The cluster of each item, also where it is unsure."""
    confidence: Floats
    """In [0, 1]: a margin, or a posterior; see `Centers`."""
    distance: Floats
    """To the centroid of that cluster, Euclidean, among the embeddings (for DeepCluster: where k-means sees them)."""
    runner_up: Labels
    """The other cluster whose centroid is nearest."""
    runner_up_distance: Floats
    """To its centroid."""

    def labels(self, min_confidence: float | None) -> Labels:
        """The clusters, and -1 where the confidence is below a bound."""
        unsure = False if min_confidence is None else self.confidence < min_confidence
        return np.where(unsure, -1, self.clusters)

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """The columns of labels.csv beside cluster and confidence."""
        return {name: getattr(self, name) for name in ("distance", "runner_up", "runner_up_distance")}


@dataclass(frozen=True)
class Centers:
    r"""The final clusters of a run, and what confidence in them means.

    Where clusters are those of centroids, confidence is the **margin** :math:`1 - d_1 / d_2` between the distances to
    the own centroid and to the nearest other one: 1 on the centroid, 0 half-way between two, and 0 for an item that
    a merge or a split put elsewhere than to the nearest. Where a head gives probabilities, it is the **posterior**:
    the head's probability, summed over clusters that were merged; of a cluster that was split, the margin between its
    parts where that is less.

    Parameters
    ----------
    points : Tensor
        (G, p) float32, the centroids; NaN for a cluster without members.
    by_margin : bool
        Which of the two.
    regrouping : Regrouping, optional
        What was merged and split.
    """

    points: Tensor
    by_margin: bool
    regrouping: Regrouping | None = None

    @property
    def n_more(self) -> int:
        """How many clusters splits added, less those that were merged away."""
        if self.regrouping is None:
            return 0
        into = self.regrouping.into
        return len(self.regrouping.split) + len(into.unique()) - len(into)

    def place(self, rows: RowBlocks, clusters: Tensor, posterior: Tensor) -> Placement:
        """Place items among the clusters.

        Parameters
        ----------
        rows : Tensor, or what is split as one
            (N, p), where the centroids are.
        clusters : Tensor
            (N,) int64 in [0, G), the final ones.
        posterior : Tensor
            (N,) of them before anything was split; no matter for a margin.
        """
        origins = None
        if self.regrouping is not None and len(self.regrouping.split):
            origins = self.regrouping.origins(len(self.points))
        chunks = zip(rows.split(_CHUNK), clusters.split(_CHUNK), posterior.split(_CHUNK), strict=True)
        parts = [self._place(*chunk, origins) for chunk in chunks]
        return Placement(*(torch.cat(part).numpy() for part in zip(*parts, strict=True)))

    def _place(self, rows: Tensor, clusters: Tensor, posterior: Tensor, origins: Tensor | None) -> Any:
        """`place` of a few."""
        distances = squared_distances(rows, self.points).sqrt().nan_to_num(nan=float("inf"))
        own = distances.gather(1, clusters[:, None]).squeeze(1)
        others = distances.scatter(1, clusters[:, None], float("inf"))
        second, runner_up = others.min(1)
        confidence = _margin(own, second) if self.by_margin else posterior.double()
        if origins is not None and not self.by_margin:
            siblings = torch.where(origins[clusters][:, None] == origins, others, float("inf")).amin(1)
            confidence = torch.minimum(confidence, torch.where(siblings.isinf(), 1.0, _margin(own, siblings)))
        none = second.isinf()
        return (
            clusters,
            confidence.float(),
            torch.where(own.isinf(), torch.nan, own).float(),
            torch.where(none, -1, runner_up),
            torch.where(none, torch.nan, second).float(),
        )


def find_centers(rows: RowBlocks, clusters: Tensor, given: Tensor | None, regrouping: Regrouping) -> Centers:
    """The centroids of final clusters (N,) of rows (N, p).

    Those that a method gives (K or fewer, p) stand, but for the clusters that were merged or split; means for the rest.
    """
    points = centroids_of(rows, clusters, regrouping.n_numbers).float()
    if given is not None:
        into = regrouping.into[: len(given)]
        alone = torch.bincount(regrouping.into, minlength=len(points)) == 1
        alone[regrouping.split.flatten()] = False
        points[into[alone[into]]] = given.float()[alone[into]]
    return Centers(points, given is not None, regrouping)


def place_as_trained(
    centers: Centers | None, rows: Any, labels: Tensor, posterior: Tensor, summed: Callable[[Tensor, Tensor], Tensor]
) -> Placement:
    """Place new items, whose clusters are merged and split as those of the training images were.

    Parameters
    ----------
    centers : Centers or None
        Of a run of an earlier version there are none: then nothing is known beside clusters and confidence.
    rows, labels, posterior : Tensor
        (N, p), (N,) and (N,), of the items as the network sees them.
    summed : callable
        Takes clusters (N,) and `Regrouping.into`; returns the posterior (N,) of merged clusters.
    """
    if centers is None:
        none = np.full(len(labels), np.nan, np.float32)
        return Placement(labels.numpy(), posterior.numpy(), none, np.full(len(labels), -1), none)
    clusters, regrouping = labels, centers.regrouping
    if regrouping is not None:
        clusters = regrouping.apply(labels, rows)
        if not centers.by_margin:
            posterior = summed(regrouping.into[labels], regrouping.into)
    return centers.place(rows, clusters, posterior)


def in_space(net: Any, embeddings: Tensor) -> Tensor:
    """Embeddings (N, d) where a network's clusters are: brought to the sphere by its `space`, if it has one."""
    if not hasattr(net, "space"):
        return embeddings
    device = net.space.centroids.device
    with torch.inference_mode():
        return torch.cat([net.space.prepare(part.to(device)).float().cpu() for part in embeddings.split(_CHUNK)])


def _margin(own: Tensor, other: Tensor) -> Tensor:
    """1 - own / other in [0, 1]; 0 where both are 0, as on two centroids at once, and 1 where there is no other."""
    share = torch.where(own == other, 1.0, own / other.clamp_min(1e-300))
    return 1.0 - share.nan_to_num(nan=1.0).clamp(0, 1)
