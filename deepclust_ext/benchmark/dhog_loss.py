"""dhog_loss against the loop over pairs, the best batched form we could write, and torch.compile of it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

import deepclust_ext
from deepclust_ext.benchmark.case import Case
from deepclust_ext.benchmark.mi_loss import negative_information, product_form

ALPHA = 0.05


def loop_over_pairs(probs: Tensor) -> Tensor:
    """The objective as the paper writes it: a mutual information for every pair of heads, pooled over views."""
    views, heads = probs.shape[:2]
    loss = probs.new_zeros(())
    for i in range(heads):
        pairs = [(a, b) for a in range(views) for b in range(views) if a != b]
        first = torch.cat([probs[a, i] for a, _ in pairs])
        second = torch.cat([probs[b, i] for _, b in pairs])
        loss = loss + product_form(first, second) / heads
        for j in range(i):
            later, earlier = probs[:, i].flatten(0, 1), probs[:, j].detach().flatten(0, 1)
            loss = loss - ALPHA / (i + 1) * negative_information(later.T @ earlier)
    return loss


def batched(probs: Tensor) -> Tensor:
    """All joints from three products, all mutual informations in one pass."""
    views, heads, n, classes = probs.shape
    total = probs.sum(0)
    same = torch.bmm(probs.flatten(0, 1).transpose(1, 2), probs.flatten(0, 1)).view(views, heads, classes, classes)
    pull = torch.bmm(total.transpose(1, 2), total) - same.sum(0)
    wide = probs.permute(0, 2, 1, 3).reshape(views * n, heads * classes)
    gram = (wide.T @ wide.detach()).view(heads, classes, heads, classes).permute(0, 2, 1, 3)
    later, earlier = torch.tril_indices(heads, heads, -1, device=probs.device)
    information = negative_information(torch.cat([pull, gram[later, earlier]]))
    loss: Tensor = information[:heads].mean() - ALPHA * (information[heads:] / (later + 1)).sum()
    return loss


def cases() -> list[Case]:
    """The paper's step, and smaller and larger ones."""
    made = []
    for shape, targets in (
        ((4, 8, 220, 10), {"batched": 15.0, "compiled": 6.0, "loop over pairs": 150.0}),
        ((2, 5, 700, 70), {}),
        ((4, 8, 220, 20), {}),
    ):

        def inputs(generator: torch.Generator, shape: tuple[int, ...] = shape) -> tuple[Tensor]:
            return (torch.randn(*shape, generator=generator).mul_(2).softmax(-1),)

        size, (views, heads, n, classes) = math.prod(shape), shape
        pair_products = views * n * heads * (heads - 1) // 2 + views * (views - 1) // 2 * n * heads
        # Each joint once; the pull's gradients for every view, the push's for the later head.
        products = pair_products + views * n * heads + views * n * heads * (heads - 1) // 2
        work = (4 * 3 * size, 2 * products * classes**2)
        made.append(
            Case(
                "dhog_loss",
                " x ".join(map(str, shape)),
                inputs,
                lambda probs: deepclust_ext.dhog_loss(probs, alpha=ALPHA).loss,
                {"batched": batched, "compiled": torch.compile(batched), "loop over pairs": loop_over_pairs},
                targets,
                work,
            )
        )
    return made
