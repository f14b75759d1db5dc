"""Evaluation mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode, and each one's own flag back when the block ends, however it ends."""
    # One flag a module, not one for all: a caller may train a head over a frozen batch-norm.
    training = {part: part.training for part in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for part, flag in training.items():
            part.training = flag
