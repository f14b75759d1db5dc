"""Chains of first neighbours as clusters to begin with: the public function and its fake kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from deepclust_ext.ops import _raw
from deepclust_ext.ops._common import checked_by_value, refuse_capture, refuse_vmap

__all__ = ["check_indices", "initial_clusters"]


def initial_clusters(indices: Tensor) -> Tensor:
    """Join every point with its nearest neighbour: weakly connected components of the graph of first neighbours.

    Chains have no largest length, and a cluster has two members at least unless a point is its own neighbour. On images
    clusters of about four points come out.

    Parameters
    ----------
    indices : Tensor, shape (n, k), int64
        Neighbours of each point, as of `affinity_graph`; the first column counts.

    Returns
    -------
    Tensor, shape (n,), int64
        Labels 0 to m - 1, numbered by their first members.

    Raises
    ------
    TypeError
        `indices` is not an int64 tensor.
    ValueError
        It has another shape, or entries that are no points.
    RuntimeError
        A CUDA graph is being recorded.

    References
    ----------
    Zhang, Zhao and Wang, "Agglomerative clustering via maximum incremental path integral", Pattern Recognition 46,
    2013, section 3; Yang, Parikh and Batra (JULE), CVPR 2016, section 3.3.

    Examples
    --------
    >>> import torch
    >>> from deepclust_ext import initial_clusters
    >>> initial_clusters(torch.tensor([[1], [0], [3], [4], [3]])).tolist()
    [0, 0, 1, 1, 1]
    """
    refuse_vmap("initial_clusters", "call it for each graph", indices)
    indices = check_indices("initial_clusters", "indices", indices)
    refuse_capture("initial_clusters", indices)
    return checked_by_value("initial_clusters", _raw.initial_clusters, indices)


def check_indices(op: str, arg: str, value: object) -> Tensor:
    """`value` as neighbours (n, k), or an error."""
    if not isinstance(value, Tensor) or value.dtype != torch.int64:
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"{op}: '{arg}' must be an int64 tensor, got {got}")
    if value.dim() != 2 or value.shape[1] < 1:
        raise ValueError(f"{op}: '{arg}' must have shape (n, k) with k >= 1, got {tuple(value.shape)}")
    return value


@torch.library.register_fake("deepclust::initial_clusters")
def _(indices: Tensor) -> Tensor:
    return indices.new_empty(indices.shape[:1])
