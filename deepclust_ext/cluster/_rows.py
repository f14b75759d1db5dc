"""Rows of features as scikit-learn validates them, as a tensor."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepclust_ext._optional import require

__all__ = ["as_rows", "as_tensor", "without_torch"]

_validation: Any = require("sklearn.utils.validation")


def as_rows(estimator: Any, X: Any, *, reset: bool, at_least: int = 1) -> Tensor:
    """`X` as a float32 or float64 tensor of that many rows or more, noted in the estimator where `reset`."""
    X = without_torch(X)
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
