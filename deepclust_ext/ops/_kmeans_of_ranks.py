"""`kmeans` over the ranks of a group, or in one process that reads a block of rows after another as ranks would."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from deepclust_ext.distributed import Ranks, digest_of, kind_of
from deepclust_ext.ops._common import accumulator_dtype, refuse_capture
from deepclust_ext.ops._grouped_kmeans import kmeans_of_all
from deepclust_ext.ops._grouped_knn import check_finite
from deepclust_ext.ops._kmeans import check_range, given_weights, scale_of, unit_rows
from deepclust_ext.ops._kmeans_arguments import check_count, check_inputs, options_of
from deepclust_ext.ops._rows import Rows, rows_within

__all__ = ["kmeans_of_ranks"]


def kmeans_of_ranks(
    ranks: Ranks,
    x: Tensor,
    n_clusters: int,
    init: str | Tensor,
    max_iter: int,
    tol: float,
    n_init: int,
    empty: str,
    spherical: bool,
    sample_weight: Tensor | None,
    seed: int,
    max_memory: int | None,
) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """What the raw op returns for the points of all ranks, each read in blocks, and the scale of the weights.

    Arguments are those of `kmeans`.
    """

    def prepare() -> tuple[tuple[Any, ...], dict[str, object], tuple[int]]:
        given = init
        if max_memory is not None and isinstance(init, Tensor) and isinstance(x, Tensor) and init.dtype != x.dtype:
            if init.dtype != accumulator_dtype(x.dtype):
                # All points would be copied in the wider of the two.
                raise ValueError(f"kmeans: 'init' must have x's dtype {x.dtype} with 'max_memory', got {init.dtype}")
            given = init.to(x.dtype)
        points, clusters, start = check_inputs(x, n_clusters, given)
        if isinstance(init, Tensor) and given is not init:
            start = init.detach()
        options = options_of(start, max_iter, tol, n_init, empty, spherical, seed)
        weights = given_weights(points, sample_weight)
        refuse_capture("kmeans", points)
        step = rows_within(points, clusters, max_memory, weights is not None)
        for begin in range(0, points.shape[-2], step):
            check_finite("kmeans", "x", points[..., begin : begin + step, :], begin)
        if points.shape[:-2].numel() == 0:
            raise ValueError(f"kmeans: 'x' must hold a matrix where there is a group, got shape {tuple(points.shape)}")
        facts = {"x": kind_of(points, -2), "n_clusters": clusters, "init": init, "sample_weight": weights is not None}
        if start is not None:
            check_finite("kmeans", "init", start)
            facts["init"] = digest_of(start)
        facts |= {"seed": seed, "max_iter": options.max_iter, "tol": options.tol, "n_init": n_init, "empty": empty}
        facts["spherical"] = spherical
        return (points, clusters, start, options, weights, step), facts, (points.shape[-2],)

    (points, clusters, start, options, weights, step), counts = ranks.agree(prepare)
    rows = [count for (count,) in counts]
    check_count(clusters, sum(rows))
    scale = None
    if weights is not None:
        batch = weights.shape[:-1]
        most = weights.amax(-1) if weights.shape[-1] else weights.new_zeros(batch)
        scale = scale_of(torch.stack(ranks.gather(most.reshape(1, -1), [1] * ranks.size)).amax((0, 1)).view(batch))
        weights = weights / scale.unsqueeze(-1)
    if max_memory is None:
        points = (unit_rows(points) if spherical else points.to(accumulator_dtype(points.dtype))).contiguous()
    batch = points.reshape(points.shape[:-2].numel(), *points.shape[-2:])
    matrices = [Rows(each, step, spherical=spherical and max_memory is not None) for each in batch]
    if start is not None:
        start = (unit_rows(start) if spherical else start).to(accumulator_dtype(points.dtype))
    random = isinstance(init, str) and init == "random"
    settings = (options.max_iter, options.tol, options.rule, spherical)
    best, columns = kmeans_of_all(
        ranks, matrices, points.shape[:-2], start, clusters, options.seeds, random, weights, rows, *settings
    )
    low, high = (torch.stack([each[end] for each in columns]) for end in (1, 2))
    check_range(best[2].cpu(), sum(rows) * points.shape[-1], lambda: (low, high))
    return best, scale
