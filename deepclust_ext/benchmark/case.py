"""One benchmark case: what is computed, and everybody who computes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class Case:
    """Inputs, our loss and its opponents; each is timed forward and backward, unless there is no gradient.

    `targets` maps an opponent to the ratio the project asks of it. A `slow` case takes seconds a call: it gets few
    turns, of one call.
    """

    op: str
    label: str
    inputs: Callable[[torch.Generator], tuple[Tensor, ...]]
    ours: Loss
    opponents: dict[str, Loss]
    targets: dict[str, float] = field(default_factory=dict)
    gradient: bool = True
    slow: bool = False


def step(loss: Loss, inputs: tuple[Tensor, ...], gradient: bool = True) -> Callable[[], tuple[Tensor, ...]]:
    """A call of `loss` and its gradients, ready to be timed; returns (loss, *gradients)."""
    if not gradient:
        return lambda: (loss(*inputs),)
    leaves = tuple(t.detach().clone().requires_grad_() for t in inputs)

    def run() -> tuple[Tensor, ...]:
        value = loss(*leaves)
        # A sum of a scalar is a call more for both sides, and hides the difference.
        return (value, *torch.autograd.grad(value.sum() if value.dim() else value, leaves))

    return run
