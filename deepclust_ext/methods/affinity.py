"""Merging of a graph of neighbours as a method: of pixels or embeddings, with a run folder like any other."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

from torch import Tensor

from deepclust_ext.methods.direct import Direct, Partition
from deepclust_ext.methods.parameters import documented, param, shared
from deepclust_ext.ops.agglomerate import agglomerate
from deepclust_ext.ops.cut import centroids_of, smallest_cluster
from deepclust_ext.training.sharing import shared_affinity_graph


@documented
@dataclass(eq=False, repr=False)
class Affinity(Direct):
    """Agglomerative clustering of embeddings or pixels by a graph of neighbours: JULE's criterion without its network.

    The rows are centred and L2-normalised; see `deepclust_ext.affinity_graph` and `agglomerate`. New images go to the
    nearest mean of a cluster.

    Parameters
    ----------
    {parameters}

    References
    ----------
    Zhang, Wang, Zhao and Tang, "Graph degree linkage: agglomerative clustering on a directed graph", ECCV 2012. Yang,
    Parikh and Batra, "Joint unsupervised learning of deep representations and image clusters" (JULE), CVPR 2016.

    Examples
    --------
    >>> from deepclust_ext.methods import Affinity
    >>> labels = Affinity(10).fit_predict("digits", run="runs/affinity")  # doctest: +SKIP
    """

    centred: ClassVar[bool] = True

    n_clusters: int = shared("n_clusters", 10)
    _: KW_ONLY
    n_components: int | None = param(None, "Dimensions after PCA and whitening; None has neither.", at_least=1)
    k: int = param(20, "Neighbours of an image; all others where there are fewer.", at_least=1)
    a: float = param(1.0, "The scale of affinities.", above=0)
    kc: int = param(5, "Neighbours in a cluster's score; 1 drops the local term.", at_least=1)
    lam: float = param(0.0, "Weight of the local term: 0 is graph degree linkage, 1 is JULE's.", at_least=0)
    min_cluster_size: int | None = param(
        None, "Images in a cluster at least; None takes about min(20, N / (10 K)), and 1 heeds no size.", at_least=1
    )
    seed: int = shared("seed", 0, "The labels do not depend on it.")
    device: Any = shared("device", "auto")

    def partition(self, rows: Tensor) -> Partition:
        """By merging."""
        n = len(rows)
        size = smallest_cluster(n, self.n_clusters) if self.min_cluster_size is None else self.min_cluster_size
        graph = shared_affinity_graph(rows, min(self.k, n - 1), a=self.a)
        found = agglomerate(graph, self.n_clusters, kc=self.kc, lam=self.lam, x=rows, min_size=min(size, n))
        first = int(found.initial_labels.max()) + 1
        record = {"first_clusters": first, "min_size": size, "clusters_found": found.n_clusters}
        labels = found.labels.cpu()
        centroids = centroids_of(rows.cpu(), labels, int(labels.max()) + 1).to(rows.dtype)
        return Partition(found.labels, centroids.to(rows.device), record)
