"""Any transform as an augmentation: applied image by image, its random numbers taken from our generator."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepclust_ext.data.arrays import resize, to_channels
from deepclust_ext.data.augment import Augmentation
from deepclust_ext.data.images import as_float


class TransformViews(Augmentation):
    """Applies a callable, such as a torchvision.transforms.v2 pipeline, to one image at a time.

    Such transforms draw from the global random generators. For each image those of torch (CPU), NumPy and
    Python are seeded from the generator handed in, and put back afterwards, so that views are reproducible
    and nobody else's random numbers change. A loop over images is slow: the presets are batched.

    Parameters
    ----------
    transform : callable
        Takes (C, H, W) float32 in [0, 1]; returns a tensor (C', H', W'), uint8 or floating point, of the same
        shape every time. C' is 1 or 3.
    image_shape : (int, int, int)
        (C, H, W) of the images. The transform is tried on one such image, to learn the shape of its output.

    Raises
    ------
    TypeError
        If the transform returns anything but a tensor.
    ValueError
        If its output is not (C', H', W').
    """

    def __init__(self, transform: Callable[[Tensor], Any], image_shape: tuple[int, int, int]) -> None:
        self.name = getattr(transform, "__name__", type(transform).__name__)
        super().__init__(image_shape)
        self.transform = transform
        trial = self._apply(torch.full(self.image_shape, 0.5), seed=0)
        self._output_shape = (trial.shape[0], trial.shape[1], trial.shape[2])

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """(C', H', W') of the transform's output."""
        return self._output_shape

    def view(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Transform one image after another."""
        seeds = torch.randint(2**31, (images.shape[0],), generator=generator, device=generator.device).tolist()
        views = images.new_empty((images.shape[0], *self._output_shape), dtype=torch.float32)
        for i, (image, seed) in enumerate(zip(as_float(images), seeds, strict=True)):
            result = self._apply(image.clone(), seed)
            if result.shape != self._output_shape:
                raise ValueError(
                    f"{self.name}: 'transform' must return one shape for every image, got "
                    f"{tuple(result.shape)} after {self._output_shape}"
                )
            views[i] = result
        return views

    def plain(self, images: Tensor) -> Tensor:
        """Return the images, scaled and cropped to the centre if the transform changes the size."""
        self._check(images)
        channels, height, width = self._output_shape
        plain = to_channels(as_float(images), channels)
        if (height, width) == self.image_shape[1:]:
            return plain
        if height != width:
            raise ValueError(
                f"{self.name}: 'transform' must return squares, or keep the size {self.image_shape[1:]}, "
                f"got {(height, width)}"
            )
        return resize(plain, height)

    def _apply(self, image: Tensor, seed: int) -> Tensor:
        """Transform one image under its seed."""
        with _seeded(seed):
            result = self.transform(image)
        if not isinstance(result, Tensor):
            raise TypeError(
                f"{self.name}: 'transform' must return a tensor, got {type(result).__name__}; "
                "end the pipeline with v2.ToImage()"
            )
        if result.dim() != 3 or result.shape[0] not in (1, 3):
            raise ValueError(
                f"{self.name}: 'transform' must return (C, H, W) with C 1 or 3, got shape {tuple(result.shape)}"
            )
        return as_float(result.as_subclass(Tensor))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators that transforms draw from; put their states back on leaving."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the global state is the point
    # devices=[] and the CPU's own generator: torch.manual_seed would reseed every accelerator for good.
    with torch.random.fork_rng(devices=[]):
        try:
            torch.default_generator.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002 - the global state is the point
            random.seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002 - the global state is the point
