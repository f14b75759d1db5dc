"""Checks of arguments that the whole package shares: a value as what it must be, or one sentence that names it."""

from __future__ import annotations

import math
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any, cast

import torch

# Seeds that numpy and scikit-learn take as well.
SEEDS = 2**32


def whole_number(
    where: str,
    name: str,
    value: object,
    *,
    at_least: int | None = None,
    at_most: int | None = None,
    below: int | None = None,
) -> int:
    """Return `value` as an int (a SymInt as it is), or refuse; 2.0 and True are no whole numbers.

    Parameters
    ----------
    where, name : str
        The function or class, and its argument, for the message.
    value : object
        What was given.
    at_least, at_most, below : int, optional
        Bounds.

    Raises
    ------
    TypeError, ValueError
        If it is no whole number, or out of bounds.

    Examples
    --------
    >>> whole_number("knn", "k", 0, at_least=1)
    Traceback (most recent call last):
    ValueError: knn: 'k' must be at least 1, got 0
    """
    if isinstance(value, bool) or not isinstance(value, (Integral, torch.SymInt)):
        raise TypeError(f"{where}: '{name}' must be a whole number, got {value!r}")
    found = cast(int, value) if isinstance(value, torch.SymInt) else int(value)
    if at_least is not None and found < at_least:
        raise ValueError(f"{where}: '{name}' must be at least {at_least}, got {value}")
    if at_most is not None and found > at_most:
        raise ValueError(f"{where}: '{name}' must be at most {at_most}, got {value}")
    if below is not None and found >= below:
        raise ValueError(f"{where}: '{name}' must be below {below}, got {value}")
    return found


def number(
    where: str,
    name: str,
    value: object,
    *,
    at_least: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """Return `value` as a finite float within its bounds, or refuse; arguments as in `whole_number`.

    Examples
    --------
    >>> number("DHOG", "warmup", 1.5, at_least=0, below=1)
    Traceback (most recent call last):
    ValueError: DHOG: 'warmup' must be finite, at least 0 and below 1, got 1.5
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{where}: '{name}' must be a number, got {value!r}")
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    inside = (at_least is None or found >= at_least) and (above is None or found > above)
    # Compared so that NaN is refused too.
    if not (-math.inf < found < math.inf and inside and (below is None or found < below)):
        limits = {"at least": at_least, "above": above, "below": below}
        bounds = ["finite", *(f"{word} {limit:g}" for word, limit in limits.items() if limit is not None)]
        text = bounds[0] if len(bounds) == 1 else f"{', '.join(bounds[:-1])} and {bounds[-1]}"
        raise ValueError(f"{where}: '{name}' must be {text}, got {value}")
    return found


def flag(where: str, name: str, value: object) -> bool:
    """Return True or False, or refuse: None or a string would pass for one of them."""
    if not isinstance(value, bool):
        raise TypeError(f"{where}: '{name}' must be True or False, got {value!r}")
    return value


def choice(where: str, name: str, value: object, choices: Collection[str]) -> str:
    """Return one of the names, or refuse."""
    if not isinstance(value, str) or value not in choices:  # an array would compare by its elements
        raise ValueError(f"{where}: '{name}' must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def device(where: str, value: Any) -> torch.device:
    """Turn None, "auto", a name or a device into a device that is here; "auto" takes a GPU if there is one."""
    if value is None or (isinstance(value, str) and value == "auto"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(value)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{where}: 'device' must be 'auto', 'cpu' or 'cuda', got {value!r}") from error
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"{where}: 'device' must be 'auto', 'cpu' or 'cuda', got {value!r}")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        gpus = torch.cuda.device_count()
        raise ValueError(f"{where}: 'device' must be one that is here, got {value!r}: GPUs that are visible: {gpus}")
    return found
