"""`deepclust_ext.kmeans` as a scikit-learn estimator of arrays."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deepclust_ext._isolation import own_torch_state
from deepclust_ext._optional import require
from deepclust_ext.cluster._rows import as_rows, as_tensor, without_torch
from deepclust_ext.ops.kmeans import kmeans, unit_rows
from deepclust_ext.ops.kmeans_assign import kmeans_assign

__all__ = ["KMeans"]

_base: Any = require("sklearn.base")
_validation: Any = require("sklearn.utils.validation")
_Self = TypeVar("_Self", bound="KMeans")

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[Any]


class KMeans(_base.ClassNamePrefixFeaturesOutMixin, _base.TransformerMixin, _base.ClusterMixin, _base.BaseEstimator):  # type: ignore[misc]
    """Exact k-means on rows of features.

    float32 and float64 arrays are computed in their own precision, everything else in float64.

    Parameters
    ----------
    n_clusters : int, default 8
        Clusters, at most as many as rows.
    init : {"k-means++", "random"} or array of shape (n_clusters, n_features), default "k-means++"
        The starting centroids.
    max_iter : int, default 100
        The most updates of the centroids.
    tol : float, default 0.0
        Stop when no centroid's squared step is longer; not scaled by the data.
    n_init : int, default 1
        Starts, of which the one with the lowest inertia counts; 1 where `init` is an array.
    empty : {"split", "farthest", "keep"}, default "split"
        What becomes of a cluster without members; see `deepclust_ext.kmeans`.
    spherical : bool, default False
        Cluster by cosine: rows and centroids are brought to unit length, in `predict` and `transform` too.
    seed : int, default 0
        Seeds a generator of its own.

    Attributes
    ----------
    cluster_centers_ : ndarray, shape (n_clusters, n_features)
    labels_ : ndarray of int64, shape (n_samples,)
    inertia_ : float
        Sum of squared distances to the nearest centroid.
    n_iter_ : int
        Updates made.
    history_ : list of dict
        `objective`, `moved`, `empty` and `imbalance` of every iteration.
    n_empty_ : int
        Empty clusters met over all iterations.
    n_features_in_ : int

    References
    ----------
    Lloyd, "Least squares quantization in PCM", IEEE Trans. Information Theory 28, 1982.

    Examples
    --------
    >>> import numpy as np
    >>> from deepclust_ext.cluster import KMeans
    >>> x = np.array([[0.0, 0.0], [0.0, 1.0], [9.0, 9.0], [9.0, 8.0]])
    >>> model = KMeans(2).fit(x)
    >>> bool(model.labels_[0] == model.labels_[1]), model.inertia_
    (True, 1.0)
    >>> bool(model.predict([[8.0, 8.0]])[0] == model.labels_[2])
    True
    """

    cluster_centers_: Floats
    labels_: Labels
    inertia_: float
    n_iter_: int
    history_: list[dict[str, float]]
    n_empty_: int
    n_features_in_: int
    _n_features_out: int

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Any = "k-means++",
        max_iter: int = 100,
        tol: float = 0.0,
        n_init: int = 1,
        empty: str = "split",
        spherical: bool = False,
        seed: int = 0,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.max_iter = max_iter
        self.tol = tol
        self.n_init = n_init
        self.empty = empty
        self.spherical = spherical
        self.seed = seed

    @own_torch_state()
    def fit(self: _Self, X: Any, y: Any = None) -> _Self:  # noqa: ARG002
        """Cluster rows.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        KMeans
            This estimator.
        """
        x = self._rows(X, reset=True)
        result = kmeans(
            x,
            self.n_clusters,
            init=self._start(x),
            max_iter=self.max_iter,
            tol=self.tol,
            n_init=self.n_init,
            empty=self.empty,
            spherical=self.spherical,
            seed=self.seed,
        )
        self.cluster_centers_ = result.centroids.numpy()
        self.labels_ = result.labels.numpy()
        self.inertia_ = result.inertia.item()
        self.n_iter_ = int(result.n_iter)
        self.history_ = [{name: value.item() for name, value in r._asdict().items()} for r in result.history]
        self.n_empty_ = int(result.n_empty)
        self._n_features_out = len(self.cluster_centers_)
        return self

    def fit_predict(self, X: Any, y: Any = None) -> Labels:
        """Cluster rows and return their labels.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        ndarray of int64, shape (n_samples,)
        """
        return self.fit(X, y).labels_

    @own_torch_state()
    def predict(self, X: Any) -> Labels:
        """Label rows by their nearest centroid, the lowest where several are.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)

        Returns
        -------
        ndarray of int64, shape (n_samples,)
        """
        _validation.check_is_fitted(self)
        x = self._rows(X, reset=False)
        return kmeans_assign(x, self._centroids(x)).labels.numpy()

    @own_torch_state()
    def transform(self, X: Any) -> Floats:
        """Give the distance of every row to every centroid.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)

        Returns
        -------
        ndarray, shape (n_samples, n_clusters)
        """
        _validation.check_is_fitted(self)
        x = self._rows(X, reset=False)
        # Not through products: a distance near 0 would be lost in rounding.
        distances = torch.cdist(x, self._centroids(x), compute_mode="donot_use_mm_for_euclid_dist")
        return np.asarray(distances.numpy())

    @own_torch_state()
    def score(self, X: Any, y: Any = None) -> float:  # noqa: ARG002
        """Minus the sum of squared distances of rows to their nearest centroid.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
        y : ignored

        Returns
        -------
        float
        """
        _validation.check_is_fitted(self)
        x = self._rows(X, reset=False)
        return -kmeans_assign(x, self._centroids(x)).squared_distances.double().sum().item()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _rows(self, X: Any, *, reset: bool) -> Tensor:
        x = as_rows(self, X, reset=reset)
        return unit_rows(x) if self.spherical and not reset else x

    def _start(self, x: Tensor) -> str | Tensor:
        if isinstance(self.init, str):
            return self.init
        try:
            init = np.asarray(without_torch(self.init))
        except ValueError:  # rows of different lengths
            init = np.asarray(None)
        if init.dtype.kind not in "fiub":
            got = init.dtype if isinstance(self.init, (np.ndarray, Tensor)) else type(self.init).__name__
            raise TypeError(
                "KMeans: 'init' must be 'k-means++', 'random' or a real array of shape (n_clusters, n_features), "
                f"got {got}"
            )
        return torch.from_numpy(init.astype(np.float32 if x.dtype == torch.float32 else np.float64))

    def _centroids(self, x: Tensor) -> Tensor:
        return as_tensor(self.cluster_centers_).to(x.dtype)
