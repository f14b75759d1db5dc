"""`jule_loss` spelled out in plain torch, with the same triplets: the tests' oracle and the benchmarks' opponent."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["jule_loss", "sample_triplets", "triplet_loss"]

_Words = NDArray[np.uint64]
_STEP = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1


def _mix(word: _Words) -> _Words:
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: _Words = word ^ (word >> np.uint64(31))
    return mixed


def sample_triplets(labels: Tensor, seed: int, n_negatives: int = 20) -> tuple[Tensor, Tensor, Tensor]:
    """Indices (T,) of the anchors, positives and negatives that `jule_loss` draws for a seed.

    Pair (a, p) of B samples has the random stream a B + p. Its number i is a rank r below others - k + i + 1 among the
    `others` samples of another label, ordered by label and index; negative i has the rank r, or others - k + i where
    r is taken (Floyd's algorithm).
    """
    size = len(labels)
    order = torch.argsort(labels, stable=True)
    distinct = len(labels.unique())
    same = (labels.unsqueeze(1) == labels).triu(1)
    anchors, positives = same.nonzero(as_tuple=True)
    k = max(0, min(n_negatives, distinct - 1))

    start = _mix(np.array([seed & _MASK], dtype=np.uint64))
    keys = _mix(start + (anchors * size + positives).numpy().astype(np.uint64))
    place = torch.empty_like(order)
    place[order] = torch.arange(size)
    sizes = (labels.unsqueeze(1) == labels).sum(1)[anchors]
    # Equal labels stand together in the order: the first of them is where the lowest index stands.
    begins = place[(labels.unsqueeze(1) == labels).int().argmax(1)][anchors] if size else sizes
    ranks = torch.empty((len(anchors), k), dtype=torch.int64)
    for i in range(k):
        words = _mix(keys + np.uint64((i + 1) * _STEP & _MASK))
        uniform = torch.from_numpy((words >> np.uint64(11)).astype(np.float64) * 2.0**-53)
        last = size - sizes - k + i
        rank = (uniform * (last + 1)).long().clamp(max=last)
        taken = (ranks[:, :i] == rank.unsqueeze(1)).any(1)
        ranks[:, i] = torch.where(taken, last, rank)
    places = torch.where(ranks < begins.unsqueeze(1), ranks, ranks + sizes.unsqueeze(1))
    negatives = order[places]
    return anchors.repeat_interleave(k), positives.repeat_interleave(k), negatives.reshape(-1)


def triplet_loss(
    z: Tensor, anchors: Tensor, positives: Tensor, negatives: Tensor, *, gamma: float = 2.0, margin: float = 0.2
) -> Tensor:
    """The mean of max(0, gamma |a - p|^2 - |a - n|^2 + margin) over given triplets of rows of z; 0 without any."""
    near = (z[anchors] - z[positives]).square().sum(1)
    far = (z[anchors] - z[negatives]).square().sum(1)
    return torch.relu(gamma * near - far + margin).sum() / max(1, len(anchors))


def jule_loss(
    z: Tensor,
    labels: Tensor,
    *,
    gamma: float = 2.0,
    margin: float = 0.2,
    n_negatives: int = 20,
    generator: torch.Generator | int | None = None,
) -> Tensor:
    """The weighted triplet loss of z (B, d) and labels (B,); see `deepclust_ext.jule_loss`."""
    if not isinstance(generator, int):
        generator = int(
            torch.randint(2**63 - 1, (), generator=generator, device=generator.device if generator else None)
        )
    triplets = sample_triplets(labels.cpu(), generator, n_negatives)
    z = z if z.dtype == torch.float64 else z.float()
    return triplet_loss(z, *(t.to(z.device) for t in triplets), gamma=gamma, margin=margin)
