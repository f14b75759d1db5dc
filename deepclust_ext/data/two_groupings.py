"""Images with two groupings that know nothing of each other, to see which of them a method finds."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from deepclust_ext import _checks as check
from deepclust_ext.data.images import ImageData, as_float


@dataclass(frozen=True, eq=False)
class TwoGroupings:
    """Images, and two labels of each.

    Attributes
    ----------
    images : ImageData
        With the second grouping, which is the harder one where there is one, as its labels.
    first, second : Tensor
        (N,) int64.
    """

    images: ImageData
    first: Tensor
    second: Tensor


def coloured_grounds(grey: ImageData, *, n_hues: int = 10, level: float = 1 / 3, seed: int = 0) -> TwoGroupings:
    r"""Put bright figures on grounds of evenly spread hues, drawn at random: by colour, or by figure.

    With g a pixel's grey in [0, 1] and c the ground's colour, the pixel is :math:`c + (1 - c) g`. The ground fills
    most of an image and no view moves it, so that colour is the easy grouping.

    Parameters
    ----------
    grey : ImageData
        Of one channel, bright on black, with labels.
    n_hues : int
        Colours of the ground.
    level : float
        Brightness of the ground, in (0, 1).
    seed : int
        Draws the hues.

    Returns
    -------
    TwoGroupings
        By hue, and by the labels of `grey`.

    Examples
    --------
    >>> grey = ImageData(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.arange(4))
    >>> found = coloured_grounds(grey)
    >>> found.images.images.shape, found.images.images.amax().item()
    (torch.Size([4, 3, 8, 8]), 85)
    """
    _check_grey("coloured_grounds", grey)
    check.whole_number("coloured_grounds", "n_hues", n_hues, at_least=2)
    check.number("coloured_grounds", "level", level, above=0, below=1)
    hues = torch.randint(n_hues, (len(grey),), generator=torch.Generator().manual_seed(seed))
    colours = torch.tensor([colorsys.hsv_to_rgb(hue / n_hues, 1.0, level) for hue in range(n_hues)])
    # In whole numbers, so that every machine has the same images.
    ground = (colours * 255).round().to(torch.int32)[hues][:, :, None, None]
    pixels = (as_float(grey.images) * 255).round().to(torch.int32)
    images = (ground * 255 + (255 - ground) * pixels + 127).div(255, rounding_mode="floor").to(torch.uint8)
    return _of(images, hues, grey, f"{grey.source}-grounds")


def side_by_side(grey: ImageData, *, seed: int = 0) -> TwoGroupings:
    """Put two figures beside each other: by the left one, or by the right one.

    Every figure is on the left of one image and on the right of another, at half its width, so that an image has the
    sides of before.

    Parameters
    ----------
    grey : ImageData
        Of one channel, square, of an even side, with labels.
    seed : int
        Draws who stands beside whom.

    Returns
    -------
    TwoGroupings
        By the labels of the figures on the left, and on the right.

    Examples
    --------
    >>> grey = ImageData(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.arange(4))
    >>> found = side_by_side(grey)
    >>> found.images.images.shape, sorted(found.first.tolist())
    (torch.Size([4, 1, 8, 8]), [0, 1, 2, 3])
    """
    _check_grey("side_by_side", grey)
    side = grey.image_shape[-1]
    if grey.image_shape[1] != side or side % 2:
        raise ValueError(f"side_by_side: 'grey' must be square images of an even side, got {grey.image_shape}")
    left = torch.randperm(len(grey), generator=torch.Generator().manual_seed(seed))
    half = (F.interpolate(as_float(grey.images) * 255, size=(side, side // 2), mode="area")).round().to(torch.uint8)
    images = torch.cat([half[left], half], dim=3)
    assert grey.labels is not None  # checked
    return _of(images, grey.labels[left], grey, f"{grey.source}-pairs")


def _check_grey(function: str, grey: ImageData) -> None:
    """One channel, and labels."""
    if not isinstance(grey, ImageData) or grey.image_shape[0] != 1 or grey.labels is None:
        raise ValueError(f"{function}: 'grey' must be images of one channel with labels, got {grey!r}")


def _of(images: Tensor, first: Tensor, grey: ImageData, source: str) -> TwoGroupings:
    """The images with the labels of `grey` as their second grouping."""
    assert grey.labels is not None  # checked
    return TwoGroupings(ImageData(images, grey.labels, source=source), first, grey.labels)
