"""Augmentations by name, with parameters that a configuration can set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deepclust_ext.data.augment import Augmentation, Identity
from deepclust_ext.data.geometry import affine_matrix, crop_matrix, sample, uniform
from deepclust_ext.data.images import as_float


class Digits(Augmentation):
    """Written figures: small rotation, scale, slant and shift, a random window, a change of ink. No flips.

    Parameters
    ----------
    image_shape : (int, int, int)
        (C, H, W).
    degrees : float
        Rotation in [-degrees, degrees].
    scale : (float, float)
        Size of the content.
    stretch : float
        Width over height in [1 / (1 + stretch), 1 + stretch], at constant area.
    shear : float
        Tangent of the slant, in [-shear, shear].
    shift : float
        Shift as a share of the side, in [-shift, shift].
    crop : (float, float)
        Side of the random window, as a share of the image's; the window is scaled to the full size.
    contrast : float
        Factor on the pixels in [1 - contrast, 1 + contrast].
    brightness : float
        Amount added to the pixels in [-brightness, brightness].
    """

    name = "digits"

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        degrees: float = 15.0,
        scale: tuple[float, float] = (0.85, 1.15),
        stretch: float = 0.2,
        shear: float = 0.2,
        shift: float = 0.05,
        crop: tuple[float, float] = (0.75, 1.0),
        contrast: float = 0.3,
        brightness: float = 0.0,
    ) -> None:
        super().__init__(image_shape)
        self.degrees, self.scale, self.stretch, self.shear, self.shift = degrees, scale, stretch, shear, shift
        self.crop, self.contrast, self.brightness = crop, contrast, brightness

    def view(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw all parameters, compose them into one map, sample once."""
        b = images.shape[0]
        _, h, w = self.image_shape
        radians = self.degrees * torch.pi / 180.0
        matrix = affine_matrix(
            angle=uniform(b, -radians, radians, generator),
            scale=uniform(b, *self.scale, generator),
            stretch=(1.0 + self.stretch) ** uniform(b, -1.0, 1.0, generator),
            shear=uniform(b, -self.shear, self.shear, generator),
            shift_x=uniform(b, -self.shift, self.shift, generator),
            shift_y=uniform(b, -self.shift, self.shift, generator),
            aspect=w / h,
        )
        side = uniform(b, *self.crop, generator)
        place = uniform(2 * b, 0.0, 1.0, generator).view(2, b)
        matrix = crop_matrix(matrix, width=side, height=side, x=place[0], y=place[1])
        views = sample(as_float(images), matrix, (h, w))
        gain = uniform(b, 1.0 - self.contrast, 1.0 + self.contrast, generator).to(views.device)
        shift = uniform(b, -self.brightness, self.brightness, generator).to(views.device)
        return views.mul_(gain[:, None, None, None]).add_(shift[:, None, None, None]).clamp_(0.0, 1.0)


_PRESETS: dict[str, Callable[..., Augmentation]] = {"digits": Digits, "none": Identity}
PRESET_NAMES = tuple(_PRESETS)


def make_augmentation(
    spec: str | Callable[..., Any], *, image_shape: tuple[int, int, int], **parameters: Any
) -> Augmentation:
    """Build an augmentation from its name."""
    if isinstance(spec, str) and spec in _PRESETS:
        return _PRESETS[spec](image_shape, **parameters)
    raise ValueError(f"make_augmentation: 'spec' must be one of {', '.join(PRESET_NAMES)}, got {spec!r}")
