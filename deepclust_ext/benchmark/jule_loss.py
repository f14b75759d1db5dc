"""jule_loss against plain torch, which is given the triplets: ours draws them at every call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import deepclust_ext
from deepclust_ext.benchmark.case import Case
from deepclust_ext.reference.jule_loss import sample_triplets, triplet_loss

BATCH, DEPTH, SEED = 100, 160, 7


def matrix_form(z: Tensor, anchors: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
    """All distances by one matrix product, and the triplets' entries of it."""
    norms = z.square().sum(1)
    distances = norms.unsqueeze(1) + norms - 2 * z @ z.T
    near, far = distances[anchors, positives], distances[anchors, negatives]
    return torch.relu(2.0 * near - far + 0.2).sum() / max(1, len(anchors))


def labels_of(clusters: int) -> Tensor:
    """A batch's labels: one of the clusters for each sample."""
    return torch.randint(clusters, (BATCH,), generator=torch.Generator().manual_seed(clusters))


def fused(labels: Tensor) -> Callable[[Tensor], Tensor]:
    """Ours."""
    return lambda z: deepclust_ext.jule_loss(z, labels.to(z.device), generator=SEED)


def on_triplets(form: Callable[..., Tensor], labels: Tensor) -> Callable[[Tensor], Tensor]:
    """A form in plain torch, on the triplets that ours draws; drawing them is not timed."""
    triplets = {"cpu": sample_triplets(labels, SEED)}

    def loss(z: Tensor) -> Tensor:
        kind = z.device.type
        if kind not in triplets:
            anchors, positives, negatives = (t.to(z.device) for t in triplets["cpu"])
            triplets[kind] = anchors, positives, negatives
        return form(z, *triplets[kind])

    return loss


def cases() -> list[Case]:
    """A batch of JULE's, from its first period (some 2,000 clusters) to its last."""
    made = []
    for clusters in (10, 17, 200, 2000):
        labels = labels_of(clusters)
        drawn = len(sample_triplets(labels, SEED)[0])

        def inputs(generator: torch.Generator) -> tuple[Tensor]:
            return (torch.nn.functional.normalize(torch.randn(BATCH, DEPTH, generator=generator)),)

        opponents = {
            "matrix form": on_triplets(matrix_form, labels),
            "compiled": on_triplets(torch.compile(matrix_form, dynamic=False), labels),
            "gathered": on_triplets(triplet_loss, labels),
            "gathered, compiled": on_triplets(torch.compile(triplet_loss, dynamic=False), labels),
        }
        # z is read and its gradient written; a distance and an edge of the gradient for every pair of samples that meets.
        pairs = min(drawn, BATCH * BATCH // 2)
        work = (4.0 * 2 * BATCH * DEPTH, 6.0 * pairs * DEPTH)
        label = f"{BATCH} x {DEPTH}, {clusters} clusters"
        made.append(Case("jule_loss", label, inputs, fused(labels), opponents, {"compiled": 1.0}, work))
    return made
