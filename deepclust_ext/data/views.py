"""The two families of views behind the presets: whole figures moved a little, and windows of photographs."""

from __future__ import annotations

import torch
from torch import Tensor

from deepclust_ext.data.augment import Augmentation
from deepclust_ext.data.colour import colour_jitter, erase
from deepclust_ext.data.geometry import affine_matrix, crop_matrix, sample, uniform

_PADDINGS = ("zeros", "border", "reflection")


class FigureViews(Augmentation):
    """Figures and objects: rotation, scale, stretch, slant, shift, a window, contrast, erasing. Never a flip.

    All geometry is composed into one affine map an image and sampled once, bilinearly.

    Parameters
    ----------
    image_shape : (int, int, int)
        (C, H, W).
    degrees : float
        Rotation in [-degrees, degrees].
    scale : (float, float)
        Size of the content; 1 leaves it.
    stretch : float
        Width over height in [1 / (1 + stretch), 1 + stretch], at constant area.
    shear : float
        Tangent of the slant, in [-shear, shear].
    shift : float
        Shift in each direction as a share of the side, in [-shift, shift].
    crop : (float, float)
        Side of a random window as a share of the image's side; the window is enlarged to the full size.
        (1, 1) crops nothing.
    brightness, contrast : float
        Factors in [1 - amount, 1 + amount]; contrast blends with the image's mean.
    erase : float
        Probability that a rectangle is filled with 0.
    erase_side : (float, float)
        Its sides as shares of the image's, drawn independently.
    padding : {"zeros", "border", "reflection"}
        What comes in from outside the image.

    Raises
    ------
    ValueError
        If a range is empty or a probability is outside [0, 1].
    """

    name = "figures"

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
        brightness: float = 0.3,
        contrast: float = 0.0,
        erase: float = 0.0,
        erase_side: tuple[float, float] = (0.2, 0.4),
        padding: str = "zeros",
    ) -> None:
        super().__init__(image_shape)
        self._check_amount("degrees", degrees, 180.0)
        self._check_amount("stretch", stretch)
        self._check_amount("shear", shear)
        self._check_amount("shift", shift, 1.0)
        self._check_amount("brightness", brightness, 1.0)
        self._check_amount("contrast", contrast, 1.0)
        self._check_amount("erase", erase, 1.0)
        self._check_range("scale", scale)
        self._check_range("crop", crop, 1.0)
        self._check_range("erase_side", erase_side, 1.0)
        if padding not in _PADDINGS:
            raise ValueError(f"{self.name}: 'padding' must be one of {', '.join(_PADDINGS)}, got {padding!r}")
        self.degrees, self.scale, self.stretch, self.shear, self.shift = degrees, scale, stretch, shear, shift
        self.crop, self.brightness, self.contrast = crop, brightness, contrast
        self.erase, self.erase_side, self.padding = erase, erase_side, padding

    def view(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw all parameters, compose one map, sample once."""
        b, (_, h, w) = images.shape[0], self.image_shape
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
        x, y = uniform(b, 0.0, 1.0, generator), uniform(b, 0.0, 1.0, generator)
        matrix = crop_matrix(matrix, width=side, height=side, x=x, y=y)
        views = sample(images, matrix, (h, w), padding=self.padding)
        # What is switched off draws nothing: a parameter at 0 costs no time.
        if self.brightness or self.contrast:
            one = torch.ones(b, device=generator.device)
            brightness = uniform(b, 1.0 - self.brightness, 1.0 + self.brightness, generator)
            contrast = uniform(b, 1.0 - self.contrast, 1.0 + self.contrast, generator)
            views = colour_jitter(views, brightness=brightness, contrast=contrast, saturation=one, hue=0.0 * one)
        if self.erase:
            draws = torch.rand(5, b, generator=generator, device=generator.device)
            low, high = self.erase_side
            width, height = low + (high - low) * draws[1:3]
            erase(views, applied=draws[0] < self.erase, width=width, height=height, x=draws[3], y=draws[4])
        return views


class PhotoViews(Augmentation):
    """Photographs: a random window enlarged to the full size, flip, colour jitter, greyscale.

    Parameters
    ----------
    image_shape : (int, int, int)
        (C, H, W).
    area : (float, float)
        Area of the window as a share of the image's.
    ratio : float
        Width over height of the window in [1 / ratio, ratio], log-uniform; a side never exceeds the image's.
    flip : float
        Probability of a mirror image.
    brightness, contrast, saturation : float
        Factors in [1 - amount, 1 + amount].
    hue : float
        Turns of chroma in [-hue, hue]; 0.5 reaches every hue.
    grayscale : float
        Probability of greyscale.

    Raises
    ------
    ValueError
        If a range is empty or a probability is outside [0, 1].
    """

    name = "photos"

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        area: tuple[float, float] = (0.2, 1.0),
        ratio: float = 4.0 / 3.0,
        flip: float = 0.5,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        hue: float = 0.1,
        grayscale: float = 0.2,
    ) -> None:
        super().__init__(image_shape)
        self._check_range("area", area, 1.0)
        if ratio < 1.0:
            raise ValueError(f"{self.name}: 'ratio' must be at least 1, got {ratio}")
        for name, amount in (("flip", flip), ("brightness", brightness), ("contrast", contrast)):
            self._check_amount(name, amount, 1.0)
        for name, amount in (("saturation", saturation), ("grayscale", grayscale)):
            self._check_amount(name, amount, 1.0)
        self._check_amount("hue", hue, 0.5)
        self.area, self.ratio, self.flip = area, ratio, flip
        self.brightness, self.contrast, self.saturation = brightness, contrast, saturation
        self.hue, self.grayscale = hue, grayscale

    def view(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Window and flip in one sampling, colour in one pass."""
        b, (_, h, w) = images.shape[0], self.image_shape
        area = uniform(b, *self.area, generator)
        ratio = self.ratio ** uniform(b, -1.0, 1.0, generator) * (h / w)
        width, height = (area * ratio).sqrt().clamp_(max=1.0), (area / ratio).sqrt().clamp_(max=1.0)
        x, y, flip, grey = torch.rand(4, b, generator=generator, device=generator.device)
        width = torch.where(flip < self.flip, -width, width)
        identity = torch.eye(2, 3, device=generator.device).expand(b, 2, 3)
        matrix = crop_matrix(identity, width=width, height=height, x=x, y=y)
        # "border": half a pixel beyond the rim is the rim's colour, not a dark frame.
        views = sample(images, matrix, (h, w), padding="border")
        saturation = uniform(b, 1.0 - self.saturation, 1.0 + self.saturation, generator)
        return colour_jitter(
            views,
            brightness=uniform(b, 1.0 - self.brightness, 1.0 + self.brightness, generator),
            contrast=uniform(b, 1.0 - self.contrast, 1.0 + self.contrast, generator),
            saturation=torch.where(grey < self.grayscale, 0.0, saturation),
            hue=uniform(b, -self.hue, self.hue, generator),
        )
