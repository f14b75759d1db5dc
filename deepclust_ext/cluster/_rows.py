"""Rows of features as scikit-learn validates them, as a tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepclust_ext._optional import require

__all__ = ["as_centroids", "as_rows", "as_tensor", "without_torch"]

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
    return torch.from_numpy(array.astype(np.float32 if x.dtype == torch.float32 else np.float64))
