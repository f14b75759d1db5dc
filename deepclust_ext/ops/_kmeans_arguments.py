"""What `kmeans` is asked: its arguments, each of them checked."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from deepclust_ext import _checks as check
from deepclust_ext.ops._common import check_floating
from deepclust_ext.ops.kmeans_assign import check_pair, check_points

__all__ = ["Options", "check_count", "check_inputs", "options_of"]

_EMPTY = ("split", "farthest", "keep")
_INIT = ("k-means++", "random")


class Options(NamedTuple):
    max_iter: int
    tol: float
    seeds: list[int]
    """One for each start."""
    rule: int
    """What becomes of empty clusters, as the raw op has it."""


def options_of(
    start: Tensor | None, max_iter: int, tol: float, n_init: int, empty: str, spherical: bool, seed: int
) -> Options:
    max_iter = check.whole_number("kmeans", "max_iter", max_iter, at_least=0, at_most=2**31 - 1)
    n_init = check.whole_number("kmeans", "n_init", n_init, at_least=1)
    seed = check.whole_number("kmeans", "seed", seed)
    tol = check.number("kmeans", "tol", tol)
    if tol < 0:
        raise ValueError(f"kmeans: 'tol' must be at least 0, got {tol}")
    check.choice("kmeans", "empty", empty, _EMPTY)
    check.flag("kmeans", "spherical", spherical)
    if start is not None and n_init != 1:
        raise ValueError(f"kmeans: 'n_init' must be 1 when 'init' is a tensor, got {n_init}")
    # An odd step, so that no two starts of a seed coincide, and far from other seeds in use; brought to int64.
    seeds = [(seed + number * 0x9E3779B97F4A7C15 + 2**63) % 2**64 - 2**63 for number in range(n_init)]
    return Options(max_iter, tol, seeds, _EMPTY.index(empty))


def check_inputs(x: object, n_clusters: object, init: object) -> tuple[Tensor, int, Tensor | None]:
    """The points, K, and the starting centroids where they are given."""
    points = check_points("kmeans", x)
    clusters = check.whole_number("kmeans", "n_clusters", n_clusters, at_least=1)
    if isinstance(init, str) and init in _INIT:
        return points, clusters, None
    if not isinstance(init, Tensor):
        # An array's text would fill the screen.
        error, got = (ValueError, repr(init)) if isinstance(init, str) else (TypeError, type(init).__name__)
        raise error(f"kmeans: 'init' must be 'k-means++', 'random' or a tensor of centroids, got {got}")
    init = check_floating("kmeans", "init", init)
    if init.dim() < 2 or init.shape[-2] != clusters:
        raise ValueError(
            f"kmeans: 'init' must have shape (..., {clusters}, {points.shape[-1]}) for n_clusters={clusters}, "
            f"got {tuple(init.shape)}"
        )
    leading = points.shape[:-2]
    points, start = check_pair("kmeans", "init", points, init)
    if points.shape[:-2] != leading:
        raise ValueError(
            f"kmeans: 'init' must have x's leading dimensions {tuple(leading)} or fewer, got {tuple(init.shape[:-2])}"
        )
    return points, clusters, start


def check_count(clusters: int, points: int) -> None:
    if clusters > points:
        raise ValueError(f"kmeans: 'n_clusters' must be at most the number of points, {points}, got {clusters}")
