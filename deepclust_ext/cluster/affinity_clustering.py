"""`deepclust_ext.agglomerate` as a scikit-learn estimator of arrays."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from deepclust_ext import _checks as check
from deepclust_ext._isolation import own_torch_state
from deepclust_ext._optional import require
from deepclust_ext.cluster._rows import as_rows, as_tensor
from deepclust_ext.ops.affinity_graph import affinity_graph
from deepclust_ext.ops.agglomerate import agglomerate
from deepclust_ext.ops.cut import Agglomeration, centroids_of, cut
from deepclust_ext.ops.kmeans_assign import kmeans_assign

__all__ = ["AffinityClustering"]

_base: Any = require("sklearn.base")
_validation: Any = require("sklearn.utils.validation")
_Self = TypeVar("_Self", bound="AffinityClustering")

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[Any]


class AffinityClustering(_base.ClusterMixin, _base.BaseEstimator):  # type: ignore[misc]
    """Agglomerative clustering of a nearest-neighbour graph by JULE's criterion.

    Rows are joined with their nearest neighbours, then clusters are merged by the affinities of the graph's edges, and
    by their centroids where none are left. float32 and float64 arrays are computed in their own precision, everything
    else in float64. Images are best given flattened, centred per pixel and L2-normalised.

    Parameters
    ----------
    n_clusters : int, default 8
        At most as many as rows. Chains of nearest neighbours are never cut, so few rows may make fewer clusters.
    k : int, default 20
        Neighbours of a row in the graph; as many as there are where there are fewer other rows.
    a : float, default 1.0
        Scale of affinities; see `deepclust_ext.affinity_graph`.
    kc, lam, update
        The criterion; see `deepclust_ext.agglomerate`. `lam=0` is graph degree linkage (AC-GDL).
    min_size : int, optional
        Members that every cluster is to have at least; see `deepclust_ext.cut`.
    small : {"nearest", "noise"}, default "nearest"
        With `min_size`: smaller clusters join the nearest large one, or are labelled -1.

    Attributes
    ----------
    labels_ : ndarray of int64, shape (n_samples,)
        0 to n_clusters_ - 1, numbered by first member; -1 for noise.
    n_clusters_ : int
        How many there are; look at it where `min_size` is given.
    children_ : ndarray of int64, shape (n_samples - 1, 2)
        The whole tree over rows, down to one cluster, as of scikit-learn's `AgglomerativeClustering`: merge t makes
        node n_samples + t. Chains of nearest neighbours come first.
    distances_ : ndarray of float64, shape (n_samples - 1,)
        Heights of the merges, for a dendrogram: 0 within chains, then 1 / (1 + affinity), or the height of the merge
        before where that is higher. Merges by centroids are at 1.
    cluster_centers_ : ndarray, shape (n_clusters_, n_features)
        Means of the clusters; `predict` takes the nearest.
    n_features_in_ : int

    References
    ----------
    Yang, Parikh and Batra, "Joint unsupervised learning of deep representations and image clusters" (JULE), CVPR 2016;
    Zhang, Wang, Zhao and Tang, "Graph degree linkage", ECCV 2012.

    Examples
    --------
    >>> import numpy as np
    >>> from deepclust_ext.cluster import AffinityClustering
    >>> x = np.array([[0.0], [0.1], [0.3], [0.4], [5.0], [5.1]])
    >>> model = AffinityClustering(2, k=3).fit(x)
    >>> model.labels_.tolist(), model.predict([[4.0]]).tolist()
    ([0, 0, 0, 0, 1, 1], [1])
    """

    labels_: Labels
    n_clusters_: int
    children_: Labels
    distances_: Floats
    cluster_centers_: Floats
    n_features_in_: int

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        k: int = 20,
        a: float = 1.0,
        kc: int = 5,
        lam: float = 1.0,
        update: str = "exact",
        min_size: int | None = None,
        small: str = "nearest",
    ) -> None:
        self.n_clusters = n_clusters
        self.k = k
        self.a = a
        self.kc = kc
        self.lam = lam
        self.update = update
        self.min_size = min_size
        self.small = small

    @own_torch_state()
    def fit(self: _Self, X: Any, y: Any = None) -> _Self:  # noqa: ARG002
        """Cluster rows.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        AffinityClustering
            This estimator.
        """
        x = as_rows(self, X, reset=True, at_least=2)
        n_clusters = check.whole_number("AffinityClustering", "n_clusters", self.n_clusters, at_least=1)
        if n_clusters > len(x):
            raise ValueError(
                f"AffinityClustering: 'n_clusters' must be at most the number of rows, {len(x)}, got {n_clusters}"
            )
        k = check.whole_number("AffinityClustering", "k", self.k, at_least=1)
        graph = affinity_graph(x, min(k, len(x) - 1), a=self.a)
        tree = agglomerate(graph, 1, kc=self.kc, lam=self.lam, update=self.update, x=x)
        found = cut(tree, min(n_clusters, len(tree.children) + 1), min_size=self.min_size, small=self.small, x=x)
        self.labels_, self.n_clusters_ = found.labels.numpy(), found.n_clusters
        self.children_, self.distances_ = _tree_of_rows(tree)
        members = found.labels >= 0
        centres = centroids_of(x[members], found.labels[members], found.n_clusters)
        self.cluster_centers_ = centres.to(x.dtype).numpy()
        return self

    @own_torch_state()
    def predict(self, X: Any) -> Labels:
        """Label rows by the nearest mean of a cluster, the lowest where several are; -1 where all was noise.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)

        Returns
        -------
        ndarray of int64, shape (n_samples,)
        """
        _validation.check_is_fitted(self)
        x = as_rows(self, X, reset=False)
        if self.n_clusters_ == 0:
            return np.full(len(x), -1, dtype=np.int64)
        return kmeans_assign(x, as_tensor(self.cluster_centers_).to(x.dtype)).labels.numpy()


def _tree_of_rows(tree: Agglomeration) -> tuple[Labels, Floats]:
    """The tree with rows as its leaves, and heights that never fall."""
    start = tree.initial_labels.numpy()
    n, first = len(start), len(tree.children) + 1
    # Chains: rows in order of their clusters, each joining what the cluster has so far.
    order = np.argsort(start, kind="stable")
    joins = np.flatnonzero(start[order[1:]] == start[order[:-1]]) + 1
    made = n + np.arange(len(joins))
    before = order[joins - 1].copy()
    again = np.flatnonzero(np.diff(joins) == 1) + 1  # not the second member of its cluster
    before[again] = made[again - 1]
    chains = np.sort(np.stack([before, order[joins]], axis=1), axis=1)
    tops = np.empty(first, dtype=np.int64)
    tops[start[order]] = order  # of rows alone; the last one written is the cluster's last row
    tops[start[order[joins]]] = made
    nodes = np.concatenate([tops, n + len(joins) + np.arange(len(tree.children))])
    merges = np.sort(nodes[tree.children.numpy()], axis=1)
    heights = np.maximum.accumulate(1 / (1 + tree.affinities.numpy()))
    return np.concatenate([chains, merges]), np.concatenate([np.zeros(len(joins)), heights])
