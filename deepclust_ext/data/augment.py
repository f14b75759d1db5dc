"""What every augmentation is: random views of a batch, and one plain view for evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from deepclust_ext.data.images import as_float


class Augmentation(ABC):
    """Draws one random view of every image of a batch.

    Calling it twice gives the two views of a training pair: they come from the same distribution, so they are
    exchangeable. All randomness comes from the generator handed in; the same generator state gives the same
    bits.

    Parameters
    ----------
    image_shape : (int, int, int)
        (C, H, W) of the images it will be given.
    """

    name: str = "augmentation"

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        c, h, w = image_shape
        if c not in (1, 3) or h < 1 or w < 1:
            raise ValueError(f"{self.name}: 'image_shape' must be (C, H, W) with C 1 or 3, got {tuple(image_shape)}")
        self.image_shape: Any = (int(c), int(h), int(w))

    @property
    def output_shape(self) -> Any:
        """(C', H', W') of every view; the images' own shape unless a preset says otherwise."""
        return self.image_shape

    def __call__(self, images: Tensor, *, generator: torch.Generator) -> Tensor:
        """Draw one random view of each image.

        Parameters
        ----------
        images : Tensor
            (B, C, H, W) uint8, or floating point in [0, 1].
        generator : torch.Generator
            Source of all randomness; it is advanced.

        Returns
        -------
        Tensor
            (B, C', H', W') float32 in [0, 1], on the images' device.

        Raises
        ------
        ValueError
            If the images are not of the shape the augmentation was made for.
        TypeError
            If `images` is no tensor, or `generator` no torch.Generator.
        """
        self._check(images)
        if not isinstance(generator, torch.Generator):
            raise TypeError(
                f"{self.name}: 'generator' must be a torch.Generator, got {type(generator).__name__}; "
                "pass torch.Generator().manual_seed(0)"
            )
        return self.view(images, generator)

    @abstractmethod
    def view(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the views; `images` are checked already."""

    def check_count(self, n_images: int) -> None:  # noqa: B027 - views of single images need no number of them
        """Refuse too few training images, before any work."""

    def prepare(self, images: Tensor) -> None:  # noqa: B027 - nor to see them all
        """Look at all training images once, before the first `views_of`: for views that are made of several images."""

    def views_of(self, images: Tensor, index: Tensor, *, generator: torch.Generator) -> Tensor:
        """Draw one random view of each of the training images `index` (B,) int64, of all of them (N, C, H, W)."""
        return self(images[index], generator=generator)

    def plain(self, images: Tensor) -> Tensor:
        """Return the deterministic view for evaluation: the images themselves.

        Parameters
        ----------
        images : Tensor
            (B, C, H, W) uint8, or floating point in [0, 1].

        Returns
        -------
        Tensor
            (B, C', H', W') float32 in [0, 1], of the random views' shape.
        """
        self._check(images)
        return as_float(images)

    def _check(self, images: Tensor) -> None:
        """Refuse images of another shape than the augmentation was made for."""
        if not isinstance(images, Tensor):
            raise TypeError(f"{self.name}: 'images' must be a torch.Tensor, got {type(images).__name__}")
        if images.dim() != 4 or tuple(images.shape[1:]) != self.image_shape:
            c, h, w = self.image_shape
            raise ValueError(f"{self.name}: 'images' must be (B, {c}, {h}, {w}), got shape {tuple(images.shape)}")

    def _check_amount(self, parameter: str, value: float, highest: float = float("inf")) -> None:
        """Refuse an amount or a probability outside [0, highest]."""
        if not 0.0 <= value <= highest:
            raise ValueError(f"{self.name}: '{parameter}' must be in [0, {highest:g}], got {value}")

    def _check_range(self, parameter: str, value: tuple[float, float], highest: float = float("inf")) -> None:
        """Refuse anything but 0 < low <= high <= highest."""
        if len(value) != 2 or not 0.0 < value[0] <= value[1] <= highest:
            raise ValueError(
                f"{self.name}: '{parameter}' must be (low, high) with 0 < low <= high <= {highest:g}, got {value}"
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}, {self.image_shape} -> {self.output_shape})"


class Identity(Augmentation):
    """No augmentation: every view is the image."""

    name = "none"

    def view(self, images: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002 - nothing is random
        """Return a float32 copy; the generator is not advanced."""
        return as_float(images).clone()
