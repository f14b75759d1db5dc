"""Random numbers that depend on the seed and the place in the run alone: a resume needs no state."""

from __future__ import annotations

import hashlib

import torch


def derive_seed(seed: int, purpose: str, *counters: int) -> int:
    """Mix a seed, a purpose and counters into a 63-bit seed; different places give unrelated seeds.

    Parameters
    ----------
    seed : int
        The run's seed.
    purpose : str
        What the numbers are for ("order", "augment", ...).
    *counters : int
        Epoch, step and the like.

    Returns
    -------
    seed : int
        In [0, 2**63).

    Examples
    --------
    >>> derive_seed(0, "order", 1) == derive_seed(0, "order", 1)
    True
    >>> derive_seed(0, "order", 1) == derive_seed(0, "augment", 1)
    False
    """
    key = ":".join((str(seed), purpose, *map(str, counters)))
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1


def derive_generator(seed: int, purpose: str, *counters: int) -> torch.Generator:
    """Return a CPU generator seeded with `derive_seed`."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, *counters))


def seed_default_generators(seed: int, device: torch.device) -> None:
    """Seed the generators that dropout and other modules draw from; only inside `own_torch_state`."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
