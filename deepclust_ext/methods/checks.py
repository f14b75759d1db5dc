"""Checks of a method's parameters: one sentence that names the parameter, before any work is done."""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import torch

from deepclust_ext.methods.optim import OPTIMIZERS, SCHEDULES

if TYPE_CHECKING:
    from deepclust_ext.methods.base import Method

# Seeds that scikit-learn, whose k-means every run is compared with, takes.
SEEDS = 2**32


def check_integer(method: str, name: str, value: Any, *, minimum: int, limit: int | None = None) -> None:
    """Refuse anything but a whole number of at least `minimum` and below `limit`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{method}: '{name}' must be a whole number, got {value!r}")
    if value < minimum:
        raise ValueError(f"{method}: '{name}' must be at least {minimum}, got {value}")
    if limit is not None and int(value) >= limit:
        raise ValueError(f"{method}: '{name}' must be below {limit}, got {value}")


def check_number(method: str, name: str, value: Any, *, minimum: float = 0.0, above: bool = False) -> None:
    """Refuse anything but a finite number of at least (or, with `above`, above) `minimum`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{method}: '{name}' must be a number, got {value!r}")
    if not math.isfinite(value) or value < minimum or (above and value == minimum):
        bound = "above" if above else "at least"
        raise ValueError(f"{method}: '{name}' must be finite and {bound} {minimum:g}, got {value}")


def check_flag(method: str, name: str, value: Any) -> None:
    """Refuse anything but True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{method}: '{name}' must be True or False, got {value!r}")


def check_choice(method: str, name: str, value: Any, choices: Collection[str]) -> None:
    """Refuse anything but one of the names."""
    if not isinstance(value, str) or value not in choices:  # an array would compare by its elements
        raise ValueError(f"{method}: '{name}' must be one of {', '.join(map(repr, choices))}, got {value!r}")


def resolve_device(method: str, device: Any) -> torch.device:
    """Turn None, "auto", a name or a device into a device that is there."""
    if device is None or device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{method}: 'device' must be 'auto', 'cpu' or 'cuda', got {device!r}") from error
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"{method}: 'device' must be 'auto', 'cpu' or 'cuda', got {device!r}")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        gpus = torch.cuda.device_count()
        raise ValueError(f"{method}: 'device' must be one that is here, got {device!r}: GPUs that are visible: {gpus}")
    return found


def check_training_parameters(method: Method) -> None:
    """Refuse values of the parameters every method has that cannot work."""
    name = method._name
    least = {
        "n_clusters": 2,
        "n_augmentations": method._LEAST_VIEWS,
        "batch_size": 2,
        "epochs": 1,
        "evaluate_every": 1,
        "checkpoint_every": 1,
    }
    for parameter, minimum in least.items():
        check_integer(name, parameter, getattr(method, parameter), minimum=minimum)
    check_integer(name, "seed", method.seed, minimum=0, limit=SEEDS)
    check_number(name, "lr", method.lr, above=True)
    check_number(name, "weight_decay", method.weight_decay)
    check_number(name, "warmup", method.warmup)
    if method.warmup >= 1:
        raise ValueError(f"{name}: 'warmup' must be a share of the run's steps, below 1, got {method.warmup}")
    check_choice(name, "optimizer", method.optimizer, OPTIMIZERS)
    check_choice(name, "selection", method.selection, ("nmi", "mi"))
    check_choice(name, "schedule", method.schedule, SCHEDULES)
    resolve_device(name, method.device)
