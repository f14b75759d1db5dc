"""Clusters by their nearest centroid, as a network that needs no training: a projection, centroids, a spread."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deepclust_ext.ops._kmeans import unit_rows
from deepclust_ext.ops.cut import RowBlocks
from deepclust_ext.ops.kmeans_assign import kmeans_assign
from deepclust_ext.ops.pca_whiten import PCAWhitening, pca_whiten


class NearestCentroid(nn.Module):
    r"""Label rows by the nearest of K centroids, after PCA-whitening or a projection on the sphere where asked for.

    .. math:: c(x) = \arg\min_k \lVert f(x) - c_k \rVert, \qquad
              p_k \propto \exp\bigl(-\lVert f(x) - c_k \rVert^2 / 2 \sigma^2\bigr)

    The probabilities are those of round Gaussians of the
    clusters' mean variance along a dimension, :math:`\sigma^2`: in many dimensions nearly all are 0 or 1.

    Parameters
    ----------
    dim : int
        d, numbers of a flattened row.
    n_clusters : int
        K.
    n_components : int, optional
        Dimensions after PCA and whitening, where rows have unit length; None leaves both out.
    spherical : bool
        Whether rows are brought to unit length, and centroids are of unit length.
    centred : bool
        Whether the mean row is subtracted, and rows are then brought to unit length.
    """

    mean: Tensor
    components: Tensor
    scale: Tensor
    centroids: Tensor
    variance: Tensor
    count: Tensor

    def __init__(
        self,
        dim: int,
        n_clusters: int,
        *,
        n_components: int | None = None,
        spherical: bool = False,
        centred: bool = False,
    ) -> None:
        super().__init__()
        self.n_components, self.spherical, self.centred = n_components, spherical, centred
        if n_components is not None or centred:
            self.register_buffer("mean", torch.zeros(dim))
        if n_components is not None:
            self.register_buffer("components", torch.zeros(n_components, dim))
            self.register_buffer("scale", torch.zeros(n_components))
        self.register_buffer("centroids", torch.zeros(n_clusters, dim if n_components is None else n_components))
        self.register_buffer("variance", torch.ones((), dtype=torch.float64))
        # Fewer than K where a method has found fewer clusters.
        self.register_buffer("count", torch.tensor(n_clusters))

    def fit_projection(self, rows: Tensor) -> Tensor:
        """Find the projection of rows (N, d), and return what it makes of them (N, p)."""
        if self.n_components is None:
            if self.centred:
                total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
                for part in rows.split(4096):
                    total += part.double().sum(0)
                self.mean.copy_(total / len(rows))
            return self.prepare(rows)
        found = pca_whiten(rows, self.n_components)[1]
        for name in ("mean", "components", "scale"):
            getattr(self, name).copy_(getattr(found, name))
        return self.prepare(rows)

    def take(self, centroids: Tensor, prepared: RowBlocks, labels: Tensor) -> None:
        """Take over centroids (K or fewer, p), and the spread of prepared rows (N, p) about those of their labels."""
        self.centroids[: len(centroids)] = centroids
        self.count.fill_(len(centroids))
        total = torch.zeros((), dtype=torch.float64, device=labels.device)
        for rows, own in zip(prepared.split(4096), labels.split(4096), strict=True):
            total += (rows.double() - self.centroids[own].double()).square().sum()
        mean = total / (prepared.shape[0] * prepared.shape[1])
        self.variance.copy_(mean.clamp_min(torch.finfo(torch.float32).tiny))

    def prepare(self, views: Tensor) -> Tensor:
        """Flatten views (B, ...), and project them; half precision stays as it is where nothing is projected."""
        rows = views.flatten(1)
        if self.n_components is not None:
            rows = PCAWhitening(self.mean, self.components, self.scale, l2=True)(rows)
        elif self.centred:
            rows = nn.functional.normalize(rows.float() - self.mean)
        return unit_rows(rows) if self.spherical else rows

    def label(self, views: Tensor) -> Tensor:
        """Return the nearest centroid (B,) int64 of views, ties to the lowest."""
        return kmeans_assign(self.prepare(views), self._known).labels

    def outputs(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probabilities (1, B, K) of views (B, ...), and the prepared rows (B, p), float32."""
        rows = self.prepare(views)
        distances = squared_distances(rows, self._known)
        nearest = distances - distances.amin(1, keepdim=True)
        found = torch.softmax(-nearest / (2.0 * self.variance), dim=1).float()
        return nn.functional.pad(found, (0, len(self.centroids) - found.shape[1]))[None], rows.float()

    @property
    def _known(self) -> Tensor:
        """The centroids that were taken over."""
        return self.centroids[: int(self.count)]


def squared_distances(rows: Tensor, centroids: Tensor) -> Tensor:
    """Squared distances (N, K), float64, of rows (N, p) to centroids (K, p); NaN to one that is NaN."""
    # In float64: the form with a product loses digits to cancellation.
    points, centers = rows.double(), centroids.double()
    lengths = points.square().sum(1, keepdim=True) + centers.square().sum(1)
    return (lengths - 2.0 * points @ centers.T).clamp_min(0)
