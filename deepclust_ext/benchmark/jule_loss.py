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
    there: dict[torch.device, Tensor] = {}

    def loss(z: Tensor) -> Tensor:
        if z.device not in there:
            there[z.device] = labels.to(z.device)
        return deepclust_ext.jule_loss(z, there[z.device], generator=SEED)

    return loss


def on_triplets(form: Callable[..., Tensor], labels: Tensor) -> Callable[[Tensor], Tensor]:
    """A form in plain torch, on the triplets that ours draws; drawing them is not timed."""
    triplets = sample_triplets(labels, SEED)
    there: dict[torch.device, list[Tensor]] = {}

    def loss(z: Tensor) -> Tensor:
        if z.device not in there:
            there[z.device] = [t.to(z.device) for t in triplets]
        return form(z, *there[z.device])

    return loss


def cases() -> list[Case]:
    """A batch of JULE's, from its first period (some 2,000 clusters) to its last, beside the faster form for each."""
    made = []
    for clusters, name, form in (
        (10, "matrix form", matrix_form),
        (17, "matrix form", matrix_form),
        (200, "gathered", triplet_loss),
        (2000, "gathered", triplet_loss),
    ):
        labels = labels_of(clusters)

        def inputs(generator: torch.Generator) -> tuple[Tensor]:
            return (torch.nn.functional.normalize(torch.randn(BATCH, DEPTH, generator=generator)),)

        opponents = {
            name: on_triplets(form, labels),
            "compiled": on_triplets(torch.compile(form, dynamic=False), labels),
        }
        # z is read and its gradient written; a distance and an edge of the gradient for every two samples that meet.
        pairs = min(len(sample_triplets(labels, SEED)[0]), BATCH * BATCH // 2)
        work = (4.0 * 2 * BATCH * DEPTH, 6.0 * pairs * DEPTH)
        label = f"{BATCH} x {DEPTH}, {clusters} clusters"
        made.append(Case("jule_loss", label, inputs, fused(labels), opponents, {"compiled": 1.0}, work))
    return made
