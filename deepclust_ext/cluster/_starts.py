"""What scikit-learn's k-means says and warns of: the number of starts, and the iterations of the one that counts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from deepclust_ext import _checks as check

__all__ = ["print_history", "starts"]


def starts(init: Any, given: Any) -> int:
    """The number of starts, for `n_init` as given; one where `init` is an array."""
    drawn = isinstance(init, str)
    if isinstance(given, str) and given == "auto":
        return 10 if callable(init) or (drawn and init == "random") else 1
    n_init = check.whole_number("KMeans", "n_init", given, at_least=1)
    if drawn or callable(init) or n_init == 1:
        return n_init
    message = f"Explicit initial center position passed: performing only one init in KMeans instead of n_init={n_init}."
    warnings.warn(message, RuntimeWarning, stacklevel=4)
    return 1


def print_history(history: Sequence[Mapping[str, float]], n_iter: int, max_iter: int, tol: float) -> None:
    """Print a line for every iteration."""
    print("Initialization complete")
    for i, record in enumerate(history):
        print(f"Iteration {i}, inertia {record['objective']}.")
    if history and history[-1]["moved"] == 0:
        print(f"Converged at iteration {n_iter - 1}: strict convergence.")
    elif n_iter < max_iter:
        print(f"Converged at iteration {n_iter - 1}: center shift is within tolerance {tol}.")
