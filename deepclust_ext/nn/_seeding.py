"""Seeded weight initialisation that leaves the global random state as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded_init(seed: int) -> Iterator[None]:
    """Draw every CPU random number inside the block from `seed`, then put the global state back."""
    # torch.manual_seed would also reseed the accelerators' generators, which fork_rng(devices=[]) does not
    # put back; so only the CPU's default generator is touched, and modules are built on the CPU.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        yield
