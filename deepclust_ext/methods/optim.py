"""Optimizers by name, and learning rates as a pure function of the step: no state to save."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("cosine", "constant")
MOMENTUM = 0.9


def build_optimizer(
    name: str,
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
    *,
    lr: float,
    weight_decay: float,
    momentum: float = MOMENTUM,
    nesterov: bool = True,
) -> torch.optim.Optimizer:
    """Make an optimizer by name.

    Parameters
    ----------
    name : {"adam", "adamw", "sgd"}
        The rule.
    parameters : iterable of Parameter, or of dict
        What is trained, or groups of it with options of their own.
    lr, weight_decay : float
        The largest learning rate, and the weight decay.
    momentum, nesterov : float, bool
        Of "sgd" alone.

    Returns
    -------
    optimizer : torch.optim.Optimizer

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    # fused: one pass over each tensor instead of one an operation.
    shared: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "fused": True}
    if name == "adam":
        return torch.optim.Adam(parameters, **shared)
    if name == "adamw":
        return torch.optim.AdamW(parameters, **shared)
    if name == "sgd":
        return torch.optim.SGD(parameters, momentum=momentum, nesterov=nesterov, **shared)
    raise ValueError(f"build_optimizer: 'name' must be one of {', '.join(OPTIMIZERS)}, got {name!r}")


def learning_rate_factor(schedule: str, step: int, n_steps: int, n_warmup: int = 0) -> float:
    r"""Return the share of the largest learning rate that a step uses.

    Linear over the warm-up, then 1 ("constant") or :math:`\frac12 (1 + \cos(\pi t))` ("cosine") with t from
    0 after the warm-up to 1 after the last step.

    Parameters
    ----------
    schedule : {"cosine", "constant"}
        The shape after the warm-up.
    step, n_steps : int
        This step (from 0) and the number of steps in the run.
    n_warmup : int
        Steps of warm-up; the first uses 1 / n_warmup.

    Returns
    -------
    factor : float
        In [0, 1].

    Raises
    ------
    ValueError
        If the schedule is unknown.

    Examples
    --------
    >>> [round(learning_rate_factor("cosine", step, 4), 3) for step in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    >>> learning_rate_factor("constant", 0, 10, n_warmup=2)
    0.5
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"learning_rate_factor: 'schedule' must be one of {', '.join(SCHEDULES)}, got {schedule!r}")
    if step < n_warmup:
        return (step + 1) / n_warmup
    if schedule == "constant":
        return 1.0
    return 0.5 * (1.0 + math.cos(math.pi * (step - n_warmup) / max(1, n_steps - n_warmup)))
