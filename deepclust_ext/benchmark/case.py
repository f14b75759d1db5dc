"""One benchmark case: what is computed, and everybody who computes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Loss = Callable[..., Tensor]


@dataclass(frozen=True)
class Case:
    """Inputs, our loss and its opponents; each is timed forward and backward, unless there is no gradient.

    `targets` maps an opponent to the ratio the project asks of it (on the CPU). `work` is what no implementation can do
    without, forward and backward, in float32: bytes to and from memory, and operations. A `slow`
    case takes seconds a call: it gets few turns, of one call. Opponents that are `cpu_only` are left out on a GPU.
    """

    op: str
    label: str
    inputs: Callable[[torch.Generator], tuple[Tensor, ...]]
    ours: Loss
    opponents: dict[str, Loss]
    targets: dict[str, float] = field(default_factory=dict)
    work: tuple[float, float] = (0.0, 0.0)
    gradient: bool = True
    slow: bool = False
    cpu_only: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Contest:
    """Whole runs instead of a loss and its gradient; the contestant called "ours" is ours.

    `contestants` makes those of a device, `disagreement` looks at what they returned and names whoever differs from
    ours, `remarks` adds lines of figures to the CPU's medians (in microseconds).
    """

    op: str
    label: str
    contestants: Callable[[str], dict[str, Callable[[], Any]]]
    disagreement: Callable[[dict[str, Any]], str]
    targets: dict[str, float] = field(default_factory=dict)
    turns: int = 5
    remarks: Callable[[dict[str, float]], list[str]] = lambda _medians: []


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
