"""Argument checks that every score shares: arrays or tensors in, numpy out, one sentence if wrong."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

Array: TypeAlias = npt.NDArray[Any]
Labels: TypeAlias = npt.NDArray[np.int64]


def as_array(value: object) -> Array:
    """Return a numpy array of a tensor on any device, an array or a sequence."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return np.asarray(value)


def as_labels(function: str, argument: str, value: object) -> Labels:
    """Return labels as int64 (N,), or refuse what is not a non-empty row of non-negative integers."""
    labels = as_array(value)
    if labels.ndim != 1:
        raise ValueError(f"{function}: {argument!r} must have shape (N,), got shape {labels.shape}")
    if labels.size == 0:
        raise ValueError(f"{function}: {argument!r} must hold at least one label, got none")
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"{function}: {argument!r} must be integers, got {labels.dtype}; convert with .astype(int)")
    if labels.min() < 0:
        raise ValueError(
            f"{function}: {argument!r} must be non-negative, got {labels.min()}; drop the unlabelled rows first"
        )
    return labels.astype(np.int64)


def as_label_pair(
    function: str, labels: object, y: object, names: tuple[str, str] = ("labels", "y")
) -> tuple[Labels, Labels]:
    """Return two rows of labels of equal length."""
    first, second = as_labels(function, names[0], labels), as_labels(function, names[1], y)
    if len(first) != len(second):
        raise ValueError(f"{function}: {names[1]!r} must be as long as {names[0]!r} ({len(first)}), got {len(second)}")
    return first, second


def as_features(function: str, argument: str, value: object) -> Array:
    """Return features as float (N, d), or refuse another shape, an empty one, NaN and infinity."""
    features = as_array(value)
    if features.ndim != 2 or features.size == 0:
        raise ValueError(f"{function}: {argument!r} must have shape (N, d), neither 0, got shape {features.shape}")
    if not np.issubdtype(features.dtype, np.floating):
        features = features.astype(np.float32)
    if not np.isfinite(features).all():
        raise ValueError(f"{function}: {argument!r} must be finite, got NaN or infinity")
    return features


def as_probe_pair(
    function: str, train: object, y_train: object, test: object, y_test: object
) -> tuple[Array, Labels, Array, Labels]:
    """Return two sets of features with their labels: a label a row, and as many columns in both."""
    gallery, queries = as_features(function, "train", train), as_features(function, "test", test)
    classes, truth = as_labels(function, "y_train", y_train), as_labels(function, "y_test", y_test)
    for name, labels, rows in (("y_train", classes, gallery), ("y_test", truth, queries)):
        if len(labels) != len(rows):
            raise ValueError(f"{function}: {name!r} must have a label per row ({len(rows)}), got {len(labels)}")
    if gallery.shape[1] != queries.shape[1]:
        raise ValueError(
            f"{function}: 'test' must have as many columns as 'train' ({gallery.shape[1]}), got {queries.shape[1]}"
        )
    return gallery, classes, queries, truth
