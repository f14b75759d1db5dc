"""What `kmeans` is made of: weights brought to one scale, a start with its records, the better of two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deepclust_ext.ops import _raw
from deepclust_ext.ops._common import accumulator_dtype, check_floating, checked_by_value

# Iterations that a run can record at first.
_RECORD = 256


def given_weights(points: Tensor, sample_weight: object) -> Tensor | None:
    """Weights (..., N) in float64, each of them within range; None without."""
    if sample_weight is None:
        return None
    given = check_floating("kmeans", "sample_weight", sample_weight).detach()
    if given.device != points.device:
        raise ValueError(f"kmeans: 'sample_weight' must be on x's device {points.device}, got {given.device}")
    try:
        weights = given.double().expand(points.shape[:-1])
    except RuntimeError:
        raise ValueError(
            f"kmeans: 'sample_weight' must have a weight for every point, shape {tuple(points.shape[:-1])}, "
            f"got {tuple(given.shape)}"
        ) from None
    if not ((weights >= 0) & (weights < 1e300)).all():
        wrong = weights[~((weights >= 0) & (weights < 1e300))][0]
        raise ValueError(f"kmeans: 'sample_weight' must be at least 0 and below 1e300, got {wrong:g}")
    return weights


def scale_of(most: Tensor) -> Tensor:
    """The power of two (...) that brings weights of which `most` is the largest to [0, 1]."""
    if (most == 0).any():
        raise ValueError("kmeans: 'sample_weight' must have a weight above 0 in every matrix, got zeros alone")
    mantissa = torch.frexp(most).mantissa
    # Exact, and 1 for weights of 1.
    return most / torch.where(mantissa == 0.5, torch.ones_like(mantissa), mantissa)


def scaled_weights(points: Tensor, sample_weight: object) -> tuple[Tensor | None, Tensor | None]:
    """Weights (..., N) in [0, 1] and float64, and the power of two (...) that they were divided by; None without."""
    weights = given_weights(points, sample_weight)
    if weights is None:
        return None, None
    scale = scale_of(weights.amax(-1))
    return weights / scale.unsqueeze(-1), scale


def settled(
    points: Tensor, start: Tensor | None, clusters: int, seed: int, max_iter: int, *options: Any
) -> tuple[Tensor, ...]:
    """One start, with as long a record as it needs: one that fills it begins again, and comes to the same."""
    length = min(max_iter, _RECORD)
    while True:
        inputs = (points, start, clusters, seed, length, *options)
        found: tuple[Tensor, ...] = checked_by_value("kmeans", _raw.kmeans, *inputs, centroids="init")
        if length == max_iter or found[3].numel() == 0 or int(found[3].max()) < length:
            return found
        length = min(max_iter, 8 * length)


def check_range(inertia: Tensor, entries: int, extremes: Callable[[], tuple[Tensor, Tensor]]) -> None:
    """Refuse points whose squared distances leave the range of floats: the labels would mean nothing.

    `entries` is N d, and `extremes` gives the least and largest entry (..., d) of each column.
    """
    lowest = torch.finfo(inertia.dtype).tiny
    fits = bool(inertia.isfinite().all())
    # A pass over the points only where they may be too close.
    if fits and not (inertia <= 2.0 * entries * lowest).any():
        return
    low, high = extremes()
    if fits:
        widths = (high - low).amax(-1).to(inertia.dtype)
        fits = not bool(((widths > 0) & (widths.square() < lowest)).any())
    if not fits:
        raise ValueError(
            f"kmeans: 'x' must have squared distances that {inertia.dtype} can sum, got values up to "
            f"{torch.maximum(low.abs(), high.abs()).max():.3g}; divide it by a constant"
        )


def random_rows(x: Tensor, n_clusters: int, seed: int, weights: Tensor | None) -> Tensor:
    """Distinct points of every matrix; of weight 0 only where no others are left."""
    batch, n = x.shape[:-2].numel(), x.shape[-2]
    indices = random_indices(batch, n, n_clusters, seed, None if weights is None else weights.reshape(batch, n).cpu())
    indices = indices.view(*x.shape[:-2], n_clusters, 1).to(x.device)
    return x.gather(-2, indices.expand(*indices.shape[:-1], x.shape[-1]))


def random_indices(batch: int, n: int, n_clusters: int, seed: int, weights: Tensor | None) -> Tensor:
    """The indices (batch, K) of such points, from weights (batch, n); on the CPU whatever the default device is."""
    seed %= 2**64
    generator = torch.Generator().manual_seed((seed ^ seed >> 32) % 2**32)  # it would look at these bits alone
    if weights is None:
        drawn = [torch.randperm(n, generator=generator, device="cpu")[:n_clusters] for _ in range(batch)]
    else:
        # Of independent exponential times at rates w, the first K are K draws by weight without replacement.
        uniform = torch.rand(batch, n, generator=generator, dtype=torch.float64, device="cpu")
        times = -torch.log1p(-uniform) / weights
        drawn = list(times.nan_to_num(torch.inf, torch.inf).sort(dim=-1, stable=True).indices[:, :n_clusters])
    return torch.stack(drawn) if drawn else torch.empty(0, n_clusters, dtype=torch.int64, device="cpu")


def lower(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Of two starts, the one of lower inertia, for each matrix of the batch; the first where they are equal."""
    length = max(first[5].shape[-1], second[5].shape[-1])
    first, second = with_records(first, length), with_records(second, length)
    better = second[2] < first[2]
    return tuple(
        torch.where(better.view(better.shape + (1,) * (a.dim() - better.dim())), b, a)
        for a, b in zip(first, second, strict=True)
    )


def with_records(raw: tuple[Tensor, ...], length: int) -> tuple[Tensor, ...]:
    """The same run with that many records: the last again, with nothing moved."""
    *rest, history, empties = raw
    more = length - empties.shape[-1]
    if more == 0:
        return raw
    last = history[..., -1:, :] * torch.tensor([1.0, 0.0, 1.0], dtype=history.dtype, device=history.device)
    return (
        *rest,
        torch.cat([history, last.expand(*last.shape[:-2], more, 3)], -2),
        torch.cat([empties, empties[..., -1:].expand(*empties.shape[:-1], more)], -1),
    )


def unit_rows(x: Tensor) -> Tensor:
    """Rows at length 1, a zero row as it is."""
    x = x.to(accumulator_dtype(x.dtype)).contiguous()  # a sum's order follows the strides
    # By the largest entry first: the squares of a huge or tiny row leave the range of floats.
    x = x / _or_one(x.abs().amax(-1, keepdim=True))
    return x / _or_one(x.square().sum(-1, keepdim=True).sqrt())


def _or_one(x: Tensor) -> Tensor:
    return torch.where(x == 0, torch.ones_like(x), x)
