"""Optimizers by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

OPTIMIZERS = ("adam", "adamw", "sgd")
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
