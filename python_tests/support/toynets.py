"""A network small enough for tests of embedding, and what it was given."""

from __future__ import annotations

import torch
from torch import nn

# How many images each call of a network had.
CALLS: list[int] = []
STOP_AFTER: list[int] = []


class Tiny(nn.Module):
    """(B, 3, 8, 8) to (B, 6); an image without any light gives infinity."""

    preprocessing = {"size": 8, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}  # noqa: RUF012

    def __init__(self, layers: int = 1) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), *(nn.Linear(6, 6) for _ in range(layers - 1)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if STOP_AFTER and sum(CALLS) + len(images) > STOP_AFTER[0]:
            raise KeyboardInterrupt
        CALLS.append(len(images))
        dark = images.amax((1, 2, 3)) <= -2.0
        return self.layers(images).masked_fill(dark[:, None], torch.inf)


def tiny() -> nn.Module:
    """As it is drawn."""
    return Tiny()


def two_layers() -> nn.Module:
    """A deeper one."""
    return Tiny(2)


def no_network() -> str:
    """What is refused."""
    return "none"


def maps() -> nn.Module:
    """Gives maps instead of features."""
    return nn.Conv2d(3, 4, 3)
