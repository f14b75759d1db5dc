"""Random numbers that depend on the seed and the place in the run alone: a resume needs no state."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

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
    """Seed the generators that dropout and other modules draw from; only inside `isolated_rng`."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


@contextlib.contextmanager
def isolated_rng(device: torch.device) -> Iterator[None]:
    """Put torch's global random state back when the block ends, whatever modules drew from it inside.

    Inside, new tensors are on the CPU unless they say otherwise, as the generators are: a default device that a caller
    has set would take them elsewhere.
    """
    # Not always: it costs a little at every call of torch.
    elsewhere = torch.get_default_device().type != "cpu"
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.device("cpu") if elsewhere else contextlib.nullcontext(),
    ):
        yield
