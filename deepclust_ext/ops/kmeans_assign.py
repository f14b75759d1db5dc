"""The nearest centroid of every point: the public function, its fake kernel and vmap rule."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from deepclust_ext.ops import _raw
from deepclust_ext.ops._common import (
    accumulator_dtype,
    batch_first,
    check_floating,
    checked_by_value,
    matched_rows,
)

__all__ = ["KMeansAssignment", "kmeans_assign"]


class KMeansAssignment(NamedTuple):
    """What `kmeans_assign` returns."""

    labels: Tensor
    """(..., N), int64: the nearest centroid of each point."""
    squared_distances: Tensor
    """(..., N): the squared Euclidean distance to it."""


def kmeans_assign(x: Tensor, centroids: Tensor) -> KMeansAssignment:
    r"""Assign every point to its nearest centroid.

    .. math:: a_i = \arg\min_k \sum_d (x_{id} - c_{kd})^2

    Exact: ties go to the lowest centroid, and no N x K matrix exists. Levels of DEEPCLUST_SIMD agree bit for bit where
    all sums are exact, as of whole numbers, and otherwise to rounding. Distances are sums of squared differences, so
    that points far from the origin lose nothing. Not differentiable: the results are detached.

    Parameters
    ----------
    x : Tensor, shape (..., N, d), float16, bfloat16, float32 or float64
        Points, in any strides. Computed in float32 (float64 for float64).
    centroids : Tensor, shape (..., K, d)
        K >= 1 centroids. Leading dimensions broadcast against those of `x`; a different dtype is promoted.

    Returns
    -------
    KMeansAssignment
        `labels` (..., N) in int64 and `squared_distances` (..., N) in float32 (float64 for float64).

    Raises
    ------
    TypeError
        An argument is not a floating-point tensor.
    ValueError
        Shapes or devices do not fit together, or an argument holds NaN or infinity (a RuntimeError under
        torch.compile).
    RuntimeError
        A CUDA graph is being recorded.

    References
    ----------
    Lloyd, "Least squares quantization in PCM", IEEE Trans. Information Theory 28, 1982.

    Examples
    --------
    >>> import torch
    >>> from deepclust_ext import kmeans_assign
    >>> labels, squared_distances = kmeans_assign(torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[0.0], [4.0]]))
    >>> labels.tolist(), squared_distances.tolist()
    ([0, 0, 1], [0.0, 1.0, 1.0])
    """
    x, centroids = check_pair("kmeans_assign", "centroids", x, centroids)
    return KMeansAssignment(*checked_by_value("kmeans_assign", _raw.kmeans_assign, x, centroids))


def check_points(op: str, x: object) -> Tensor:
    """`x` as points (..., N, d), detached, or an error."""
    points = check_floating(op, "x", x)
    if points.dim() < 2 or points.shape[-1] < 1:
        raise ValueError(f"{op}: 'x' must have shape (..., N, d) with d >= 1, got {tuple(points.shape)}")
    return points.detach()


def check_pair(op: str, arg: str, x: object, centroids: object) -> tuple[Tensor, Tensor]:
    """Points and centroids of one dtype and the same leading dimensions, detached, or an error."""
    points, centres = check_points(op, x), check_floating(op, arg, centroids).detach()
    if centres.dim() < 2 or centres.shape[-2] < 1:
        raise ValueError(f"{op}: '{arg}' must have shape (..., K, d) with K >= 1, got {tuple(centres.shape)}")
    if centres.shape[-1] != points.shape[-1]:
        raise ValueError(f"{op}: '{arg}' must have x's {points.shape[-1]} columns, got {centres.shape[-1]}")
    return matched_rows(op, "x", points, arg, centres)


@torch.library.register_fake("deepclust::kmeans_assign")
def _(x: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    sizes = x.shape[:-1]
    return x.new_empty(sizes, dtype=torch.int64), x.new_empty(sizes, dtype=accumulator_dtype(x.dtype))


@torch.library.register_vmap("deepclust::kmeans_assign")
def _(
    info: Any, in_dims: tuple[int | None, int | None], x: Tensor, centroids: Tensor
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    x, centroids = (batch_first(info.batch_size, t, dim) for t, dim in zip((x, centroids), in_dims, strict=True))
    return _raw.kmeans_assign(x, centroids), (0, 0)
