"""`deepclust_ext.kmeans` as a scikit-learn estimator of arrays."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deepclust_ext import _checks as check
from deepclust_ext._isolation import own_torch_state
from deepclust_ext._optional import require
from deepclust_ext.cluster._rows import as_centroids, as_rows, as_tensor, mapped_rows, without_torch
from deepclust_ext.cluster._starts import print_history, starts
from deepclust_ext.ops._common import accumulator_dtype
from deepclust_ext.ops._rows import Rows, rows_within
from deepclust_ext.ops.kmeans import KMeansResult, kmeans

__all__ = ["KMeans"]

_base: Any = require("sklearn.base")
_exceptions: Any = require("sklearn.exceptions")
_utils: Any = require("sklearn.utils")
_validation: Any = require("sklearn.utils.validation")
_Self = TypeVar("_Self", bound="KMeans")

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[Any]


class KMeans(_base.ClassNamePrefixFeaturesOutMixin, _base.TransformerMixin, _base.ClusterMixin, _base.BaseEstimator):  # type: ignore[misc]
    """Exact k-means on rows of features, as scikit-learn's estimator of that name.

    float32 and float64 arrays are computed in their own precision, everything else in float64. Sparse input is
    refused.

    Parameters
    ----------
    n_clusters : int, default 8
        Clusters, at most as many as rows.
    init : {"k-means++", "random"}, callable or array of shape (n_clusters, n_features), default "k-means++"
        The starting centroids; a callable gets X, n_clusters and a random_state, and returns an array.
    max_iter : int, default 100
        The most updates of the centroids.
    tol : float, default 0.0
        Stop when no centroid's squared step is longer; not scaled by the data.
    n_init : int or "auto", default 1
        Starts, of which the one with the lowest inertia counts; 1 where `init` is an array. "auto" is 1 for "k-means++"
        and arrays, and 10 otherwise.
    empty : {"split", "farthest", "keep"}, default "split"
        What becomes of a cluster without members; see `deepclust_ext.kmeans`.
    spherical : bool, default False
        Cluster by cosine: rows and centroids are brought to unit length, in `predict` and `transform` too.
    random_state : int, RandomState or None, default 0
        An int seeds generators of its own; a RandomState, or numpy's global one for None, draws such an int.
    verbose : int, default 0
        Above 0, print a line for every iteration after a fit.
    algorithm : {"lloyd", "elkan"}, default "lloyd"
        As in scikit-learn, without an effect: both are exact, and so is the search here.
    copy_x : bool, default True
        As in scikit-learn, without an effect: X is never written to.
    max_memory : int, optional
        The most bytes to take beside X, which is then an array or tensor of float16, float32 or float64 as it is, such
        as that of a mapped file: `numpy.load(path, mmap_mode="r")`. Its rows are read a block after another, and
        float16 is computed in float32. The result is the same.

    Attributes
    ----------
    cluster_centers_ : ndarray, shape (n_clusters, n_features)
    labels_ : ndarray of int64, shape (n_samples,)
    inertia_ : float
        Weighted sum of squared distances to the nearest centroid.
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
        n_init: int | str = 1,
        empty: str = "split",
        spherical: bool = False,
        random_state: Any = 0,
        verbose: int = 0,
        algorithm: str = "lloyd",
        copy_x: bool = True,
        max_memory: int | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.max_iter = max_iter
        self.tol = tol
        self.n_init = n_init
        self.empty = empty
        self.spherical = spherical
        self.random_state = random_state
        self.verbose = verbose
        self.algorithm = algorithm
        self.copy_x = copy_x
        self.max_memory = max_memory

    @own_torch_state()
    def fit(self: _Self, X: Any, y: Any = None, sample_weight: Any = None) -> _Self:  # noqa: ARG002
        """Cluster rows.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
        y : ignored
        sample_weight : array-like, shape (n_samples,), optional
            Weights of the rows; 1 where none are given.

        Returns
        -------
        KMeans
            This estimator.

        Warns
        -----
        ConvergenceWarning
            Fewer clusters than `n_clusters` have rows, as where fewer rows differ.
        RuntimeWarning
            `init` is an array, and `n_init` above 1.
        """
        check.choice("KMeans", "algorithm", self.algorithm, ("lloyd", "elkan"))
        x = self._rows(X, reset=True)
        n_clusters = check.whole_number("KMeans", "n_clusters", self.n_clusters, at_least=1)
        if len(x) < n_clusters:
            raise ValueError(
                f"KMeans: 'n_clusters' must be at most the number of points, {len(x)}, got {n_clusters}: "
                f"n_samples={len(x)} should be >= n_clusters={n_clusters}"
            )
        if self.algorithm == "elkan" and n_clusters == 1:
            message = "algorithm='elkan' doesn't make sense for a single cluster. Using 'lloyd' instead."
            warnings.warn(message, RuntimeWarning, stacklevel=2)
        result = self._best(x, self._weights(sample_weight, x))
        self.cluster_centers_ = result.centroids.numpy()
        self.labels_ = result.labels.numpy()
        self.inertia_ = result.inertia.item()
        self.n_iter_ = int(result.n_iter)
        self.history_ = [{name: value.item() for name, value in r._asdict().items()} for r in result.history]
        self.n_empty_ = int(result.n_empty)
        self._n_features_out = len(self.cluster_centers_)
        if self.verbose:
            print_history(self.history_, self.n_iter_, self.max_iter, self.tol)
        distinct = len(np.unique(self.labels_))
        if distinct < len(self.cluster_centers_):
            message = (
                f"Number of distinct clusters ({distinct}) found smaller than n_clusters ({self.n_clusters}). "
                "Possibly due to duplicate points in X."
            )
            warnings.warn(message, _exceptions.ConvergenceWarning, stacklevel=2)
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Labels:
        """Cluster rows and return their labels.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
        y : ignored
        sample_weight : array-like, shape (n_samples,), optional

        Returns
        -------
        ndarray of int64, shape (n_samples,)
        """
        return self.fit(X, y, sample_weight=sample_weight).labels_

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
        return self._assigned(self._rows(X, reset=False))[0].numpy()

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
        centroids = self._centroids(x)
        distances = torch.empty(len(x), len(centroids), dtype=centroids.dtype)
        for place, rows in self._blocks(x).blocks():
            # Not through products: a distance near 0 would be lost in rounding.
            distances[place] = torch.cdist(rows, centroids, compute_mode="donot_use_mm_for_euclid_dist")
        return np.asarray(distances.numpy())

    @own_torch_state()
    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:  # noqa: ARG002
        """Minus the weighted sum of squared distances of rows to their nearest centroid.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
        y : ignored
        sample_weight : array-like, shape (n_samples,), optional

        Returns
        -------
        float
        """
        _validation.check_is_fitted(self)
        x = self._rows(X, reset=False)
        squared = self._assigned(x)[1].double()
        weights = self._weights(sample_weight, x)
        return -(squared if weights is None else weights * squared).sum().item()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _rows(self, X: Any, *, reset: bool) -> Tensor:
        if self.max_memory is not None:
            return mapped_rows(self, X, reset=reset)
        return as_rows(self, X, reset=reset)

    def _blocks(self, x: Tensor) -> Rows:
        """The rows as they are clustered, in blocks that the memory allows."""
        step = rows_within(x, len(self.cluster_centers_), self.max_memory, weighted=False)
        return Rows(x, step, spherical=self.spherical)

    def _assigned(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest centroid of each row, and the squared distance to it."""
        return self._blocks(x).nearest(self._centroids(x))

    def _weights(self, sample_weight: Any, x: Tensor) -> Tensor | None:
        if sample_weight is None:
            return None
        sample_weight = without_torch(sample_weight)
        return as_tensor(_validation._check_sample_weight(sample_weight, x.numpy(), dtype=np.float64))

    def _best(self, x: Tensor, weights: Tensor | None) -> KMeansResult:
        """The best start."""
        self._n_init = starts(self.init, self.n_init)
        seed = self.random_state
        if not isinstance(seed, (int, np.integer)):
            seed = _utils.check_random_state(seed).randint(np.iinfo(np.int32).max)
        by_call = callable(self.init)
        random = _utils.check_random_state(int(seed)) if by_call else None
        best: KMeansResult | None = None
        for _ in range(self._n_init if by_call else 1):
            init = self.init(x.numpy(), self.n_clusters, random_state=random) if by_call else self.init
            found = kmeans(
                x,
                self.n_clusters,
                init=init if isinstance(init, str) else as_centroids(init, x, self.n_clusters),
                max_iter=self.max_iter,
                tol=self.tol,
                n_init=1 if by_call else self._n_init,
                empty=self.empty,
                spherical=self.spherical,
                sample_weight=weights,
                seed=seed,
                max_memory=self.max_memory,
            )
            best = found if best is None or found.inertia < best.inertia else best
        assert best is not None
        return best

    def _centroids(self, x: Tensor) -> Tensor:
        return as_tensor(self.cluster_centers_).to(accumulator_dtype(x.dtype))
