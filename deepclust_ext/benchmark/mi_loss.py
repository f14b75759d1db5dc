"""mi_loss against the product form, the outer product of the method's first code, and torch.compile."""

from __future__ import annotations

import math

import torch
from torch import Tensor

import deepclust_ext
from deepclust_ext.benchmark.case import Case

TINY = 1e-30


def negative_information(joint: Tensor) -> Tensor:
    """Minus the mutual information of joints (..., C, D): the fewest passes plain torch needs."""
    p = joint / joint.sum((-2, -1), keepdim=True)
    rows, cols = p.sum(-1, keepdim=True), p.sum(-2, keepdim=True)
    return -(p * (p.clamp_min(TINY).log() - rows.clamp_min(TINY).log() - cols.clamp_min(TINY).log())).sum((-2, -1))


def product_form(p: Tensor, q: Tensor) -> Tensor:
    """The joint as one matrix product."""
    joint = p.transpose(-1, -2) @ q
    return negative_information((joint + joint.transpose(-1, -2)) / 2)


def outer_product(p: Tensor, q: Tensor) -> Tensor:
    """The joint as a sum of n outer products, all of them stored."""
    joint = (p.unsqueeze(-1) * q.unsqueeze(-2)).sum(-3)
    return negative_information((joint + joint.transpose(-1, -2)) / 2)


def cases() -> list[Case]:
    """The sizes of DHOG, of over-clustering heads, and beyond."""
    made = []
    for shape, targets in (
        ((220, 10), {"product form": 5.0}),
        ((700, 70), {"product form": 1.0}),
        ((4096, 100), {"product form": 2.5, "outer product": 100.0}),
        ((512, 1000), {"product form": 1.0}),
        ((8, 220, 10), {"product form": 1.0}),
    ):

        def inputs(generator: torch.Generator, shape: tuple[int, ...] = shape) -> tuple[Tensor, Tensor]:
            p, q = torch.randn(2, *shape, generator=generator).mul_(2).softmax(-1)
            return p, q

        opponents = {"product form": product_form, "compiled": torch.compile(product_form)}
        if shape[-1] <= 100:
            opponents["outer product"] = outer_product
        label = " x ".join(map(str, shape))
        size = math.prod(shape)
        # p and q are read in both directions, their gradients written; the joint, and a product for each gradient.
        work = (4 * 6 * size, 6 * size * shape[-1])
        made.append(Case("mi_loss", label, inputs, deepclust_ext.mi_loss, opponents, targets, work))
    return made
