"""Rows of features as scikit-learn validates them, as a tensor."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepclust_ext._optional import require
from deepclust_ext.ops._grouped_knn import check_finite, in_blocks

__all__ = ["as_centroids", "as_rows", "as_tensor", "mapped_rows", "without_torch"]

# Entries that are looked at at a time.
_LOOK = 1 << 22

_sparse: Any = require("scipy.sparse")
_validation: Any = require("sklearn.utils.validation")


def as_rows(estimator: Any, X: Any, *, reset: bool, at_least: int = 1) -> Tensor:
    """`X` as a float32 or float64 tensor of that many rows or more, noted in the estimator where `reset`."""
    X = without_torch(X)
    if _sparse.issparse(X):
        raise TypeError(
            f"{type(estimator).__name__}: 'X' must be dense, got a sparse {type(X).__name__} of shape {X.shape}; "
            "convert it with .toarray()"
        )
    # scikit-learn 1.6 moved validation from a method to a function.
    options = {"reset": reset, "dtype": [np.float64, np.float32], "order": "C", "ensure_min_samples": at_least}
    if hasattr(_validation, "validate_data"):
        return as_tensor(_validation.validate_data(estimator, X, **options))
    return as_tensor(estimator._validate_data(X, **options))


def mapped_rows(estimator: Any, X: Any, *, reset: bool) -> Tensor:
    """`X` as it is, where it is an array (N, d) of floats: rows of a mapped file are not read.

    scikit-learn's own validation would convert and look at all of them.
    """
    name = type(estimator).__name__
    x = X if isinstance(X, (np.ndarray, Tensor)) else None
    kind = None if x is None else str(x.dtype).removeprefix("torch.")
    if x is None or kind not in ("float16", "float32", "float64"):
        got = type(X).__name__ if x is None else f"{type(X).__name__} of {kind}"
        raise TypeError(
            f"{name}: 'X' must be an array or a tensor of float16, float32 or float64 with 'max_memory', got {got}"
        )
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"{name}: 'X' must have shape (N, d), neither of them 0, got {tuple(x.shape)}")
    if reset:
        estimator.n_features_in_ = int(x.shape[1])
        # Of an earlier fit on a table.
        estimator.__dict__.pop("feature_names_in_", None)
    elif x.shape[1] != estimator.n_features_in_:
        raise ValueError(
            f"X has {x.shape[1]} features, but {name} is expecting {estimator.n_features_in_} features as input"
        )
    with warnings.catch_warnings():
        # A file that is mapped for reading alone is a use that we have for it: nothing here writes.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        rows = x.detach() if isinstance(x, Tensor) else torch.from_numpy(x)
    if not reset:  # else it is for `kmeans` to look
        for begin, block in in_blocks(rows, max(1, _LOOK // rows.shape[1])):
            check_finite(name, "X", block, begin)
    return rows


def as_tensor(array: Any) -> Tensor:
    """An array as a tensor; memory that joblib mapped from a file is read-only, and copied."""
    return torch.from_numpy(np.require(array, requirements="W"))


def without_torch(array: Any) -> Any:
    """A tensor's values as an array; numpy has no bfloat16."""
    if not isinstance(array, Tensor):
        return array
    array = array.detach().cpu()
    return (array.double() if array.dtype == torch.bfloat16 else array).numpy()


def as_centroids(init: Any, x: Tensor, n_clusters: int) -> Tensor:
    """Given centroids as a tensor of x's dtype."""
    try:
        array = np.asarray(without_torch(init))
    except ValueError:  # rows of different lengths
        array = np.asarray(None)
    if array.dtype.kind not in "fiub":
        got = array.dtype if isinstance(init, (np.ndarray, Tensor)) else type(init).__name__
        raise TypeError(
            "KMeans: 'init' must be 'k-means++', 'random', a callable or a real array of shape "
            f"(n_clusters, n_features), got {got}"
        )
    for place, (size, what) in enumerate(
        ((n_clusters, "the number of clusters"), (x.shape[1], "the number of features of the data"))
    ):
        if array.ndim != 2 or array.shape[place] != size:
            raise ValueError(
                f"KMeans: 'init' must have shape ({n_clusters}, {x.shape[1]}), got {array.shape}: "
                f"The shape of the initial centers {array.shape} does not match {what} {size}."
            )
    return torch.from_numpy(array.astype(np.float64 if x.dtype == torch.float64 else np.float32))
