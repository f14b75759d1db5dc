"""Where clusters are: features by PCA, whitening and length, and the centroids among them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from deepclust_ext.ops.affinity_graph import AffinityGraph, affinity_graph
from deepclust_ext.ops.agglomerate import agglomerate
from deepclust_ext.ops.cut import centroids_of, smallest_cluster
from deepclust_ext.ops.kmeans import KMeansResult, kmeans
from deepclust_ext.ops.pca_whiten import PCAWhitening, pca_whiten

# Of a row in the graph that `merge` merges.
_NEIGHBORS = 20
# Far from the sphere, and still finite when squared.
_NOWHERE = 1e3


class FeatureSpace(nn.Module):
    r"""Map features to the sphere that k-means sees, and to clusters.

    .. math:: f = \frac{w}{\lVert w \rVert}, \qquad w = (\Lambda + \epsilon \lambda_1 I)^{-1/2} V^\top (x - \mu),
              \qquad p_k \propto \exp\bigl(-\lVert f - c_k \rVert^2 / 2 \sigma^2\bigr)

    with w = x where there is no PCA. The probabilities are those of the mixture of round Gaussians that k-means is the
    limit of, :math:`\sigma^2` the clusters' mean variance along a dimension; the largest is the nearest centroid's.

    Parameters
    ----------
    dim : int
        d, the features' dimensions.
    n_clusters : int
        K.
    n_components : int or None
        Dimensions after PCA and whitening; None leaves both out.

    References
    ----------
    Caron et al., Deep Clustering for Unsupervised Learning of Visual Features, 2018, section 3.3.
    """

    mean: Tensor
    components: Tensor
    scale: Tensor
    centroids: Tensor
    variance: Tensor

    def __init__(self, dim: int, n_clusters: int, n_components: int | None) -> None:
        super().__init__()
        self.n_clusters, self.n_components = n_clusters, n_components
        if n_components is not None:
            self.register_buffer("mean", torch.zeros(dim))
            self.register_buffer("components", torch.zeros(n_components, dim))
            self.register_buffer("scale", torch.zeros(n_components))
        self.register_buffer("centroids", torch.zeros(n_clusters, dim if n_components is None else n_components))
        self.register_buffer("variance", torch.ones((), dtype=torch.float64))

    def fit(
        self,
        features: Tensor,
        *,
        init: str = "k-means++",
        max_iter: int = 20,
        n_init: int = 1,
        seed: int,
        search: Callable[..., KMeansResult] = kmeans,
    ) -> KMeansResult:
        """Find the map and the centroids of features (N, d); options as in `kmeans`, or what takes its place.

        Raises
        ------
        FloatingPointError
            If a feature is not finite, or its length leaves float32.
        """
        # By length: one that overflows would bring its row to zero. And an entry's own test would copy all features.
        if not torch.linalg.vector_norm(features, dim=1).isfinite().all():
            raise FloatingPointError(
                "FeatureSpace.fit: the network's features became NaN or infinite; try a lower 'lr'"
            )
        if self.n_components is not None:
            prepared, found = pca_whiten(features, self.n_components)
            for name in ("mean", "components", "scale"):
                getattr(self, name).copy_(getattr(found, name))
        else:
            prepared = self.prepare(features)
        result = search(prepared, self.n_clusters, init=init, max_iter=max_iter, n_init=n_init, seed=seed)
        self.centroids.copy_(result.centroids)
        self.variance.copy_(result.inertia.double() / prepared.numel())
        return result

    def merge(self, features: Tensor, graph_of: Callable[..., AffinityGraph] = affinity_graph) -> Tensor:
        """Clusters (N,) of features (N, d) by merging a graph of neighbours (AC-GDL); centroids go to their means.

        Rows are centred and L2-normalised, as `methods.Affinity` has them; a cluster has as many members as
        `ops.cut.smallest_cluster` says, at least. `graph_of` makes the graph. Needs the map of `fit`.
        """
        points = self.prepare(features).double()
        points = nn.functional.normalize(points - points.mean(0)).to(features.dtype)
        if len(points) < 2:
            return torch.zeros(len(points), dtype=torch.int64)
        graph = graph_of(points, min(_NEIGHBORS, len(points) - 1))
        size = smallest_cluster(len(points), self.n_clusters, _NEIGHBORS)
        labels = agglomerate(graph, self.n_clusters, lam=0.0, x=points, min_size=size).labels.cpu()
        self.settle(features, labels)
        return labels

    def settle(self, features: Tensor, labels: Tensor) -> None:
        """Put the centroids at the means of the clusters (N,) in [0, K) of features (N, d), on any device.

        One without members goes to where it is nearest to nothing.
        """
        # On the CPU rows are added in their order: the same bits for any number of threads.
        points, labels = self.prepare(features).double().cpu(), labels.cpu()
        means = centroids_of(points, labels, self.n_clusters)
        self.variance.copy_((points - means[labels]).square().sum() / points.numel())
        self.centroids.copy_(torch.where(means.isnan(), _NOWHERE, means))

    def prepare(self, features: Tensor) -> Tensor:
        """Bring features (B, d) to the sphere; a zero row stays zero."""
        if self.n_components is None:
            length = torch.linalg.vector_norm(features, dim=1, keepdim=True)
            return features / torch.where(length == 0, 1.0, length)
        return PCAWhitening(self.mean, self.components, self.scale, l2=True)(features)

    def probabilities(self, features: Tensor) -> Tensor:
        """The clusters' probabilities (B, K), float32, of features (B, d)."""
        # In float64: the form with a product loses digits to cancellation, and the nearest centroid decides labels.
        points, centroids = self.prepare(features).double(), self.centroids.double()
        distances = centroids.square().sum(1) - 2.0 * points @ centroids.T
        distances = distances - distances.amin(1, keepdim=True)
        return torch.softmax(-distances / (2.0 * self.variance).clamp_min(1e-12), dim=1).float()
