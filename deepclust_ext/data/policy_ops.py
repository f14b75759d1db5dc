"""The operations of augmentation policies, batched, on bytes.

They follow Pillow's definitions, truncation included, because the published policies were found with those.
Each takes (B, C, H, W) uint8 and a (B,) float32 value for each image, and returns uint8.
"""

# ruff: noqa: ARG001 - operations share one signature, and some have no use for the value

from __future__ import annotations

import torch
from torch import Tensor

# Grey for a cut-out (Lim et al., 2019), and its luma for images of one channel.
_CUTOUT_FILL = (125, 123, 114)
_CUTOUT_GREY = 123


def grey(images: Tensor) -> Tensor:
    """Return the luma (B, 1, H, W) uint8, in Pillow's fixed-point arithmetic."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.to(torch.int32).unbind(dim=1)
    total = red.mul_(19595).add_(green, alpha=38470).add_(blue, alpha=7471).add_(0x8000)
    return total.bitwise_right_shift_(16).to(torch.uint8)[:, None]


def affine(images: Tensor, matrix: Tensor) -> Tensor:
    """Sample nearest pixels through (B, 2, 3) float64 maps of pixel places, output to input; 0 outside."""
    b, c, h, w = images.shape
    x = torch.arange(w, dtype=torch.float64, device=images.device) + 0.5
    y = torch.arange(h, dtype=torch.float64, device=images.device) + 0.5
    rows = matrix[:, :, 1, None] * y + matrix[:, :, 2, None]
    source = (rows[:, :, :, None] + (matrix[:, :, 0, None] * x)[:, :, None, :]).floor_().to(torch.int64)
    column, row = source[:, 0], source[:, 1]
    inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
    index = torch.where(inside, row * w + column, 0).view(b, 1, h * w).expand(b, c, h * w)
    return images.view(b, c, h * w).gather(2, index).view_as(images).mul_(inside[:, None])


def shear_x(images: Tensor, value: Tensor) -> Tensor:
    """Slant rows: x + value * y, about the upper left corner."""
    return affine(images, _matrix(value, (1.0, value, 0.0, 0.0, 1.0, 0.0)))


def shear_y(images: Tensor, value: Tensor) -> Tensor:
    """Slant columns: y + value * x, about the upper left corner."""
    return affine(images, _matrix(value, (1.0, 0.0, 0.0, value, 1.0, 0.0)))


def translate_x(images: Tensor, value: Tensor) -> Tensor:
    """Move the content left by a share of the width."""
    return affine(images, _matrix(value, (1.0, 0.0, value * images.shape[3], 0.0, 1.0, 0.0)))


def translate_y(images: Tensor, value: Tensor) -> Tensor:
    """Move the content up by a share of the height."""
    return affine(images, _matrix(value, (1.0, 0.0, 0.0, 0.0, 1.0, value * images.shape[2])))


def rotate(images: Tensor, value: Tensor) -> Tensor:
    """Turn counter-clockwise by degrees about the centre."""
    angle = -value.to(torch.float64) * (torch.pi / 180.0)
    cos, sin = angle.cos(), angle.sin()
    x, y = images.shape[3] / 2.0, images.shape[2] / 2.0
    return affine(images, _matrix(value, (cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y)))


def invert(images: Tensor, value: Tensor) -> Tensor:
    """Turn v into 255 - v."""
    return 255 - images


def solarize(images: Tensor, value: Tensor) -> Tensor:
    """Invert the pixels that are not below the threshold."""
    return torch.where(images < value.view(-1, 1, 1, 1), images, 255 - images)


def posterize(images: Tensor, value: Tensor) -> Tensor:
    """Keep the highest int(value) bits."""
    dropped = 8 - value.to(torch.int32)
    mask = (255 - (2**dropped - 1)).to(torch.uint8)
    return images & mask.view(-1, 1, 1, 1)


def autocontrast(images: Tensor, value: Tensor) -> Tensor:
    """Stretch each channel to 0..255; a channel of one value stays."""
    low, high = (end.to(torch.float64) for end in torch.aminmax(images.flatten(2), dim=2))
    flat = high <= low
    scale = 255.0 / (high - low).clamp_(min=1.0)
    tones = torch.arange(256, dtype=torch.float64, device=images.device)
    # Product and sum as Pillow rounds them: (v - low) * scale truncates some tones to another byte.
    table = (tones * scale[:, :, None] + (-low * scale)[:, :, None]).clamp_(0.0, 255.0).to(torch.uint8)
    return _lookup(images, torch.where(flat[:, :, None], tones.to(torch.uint8), table))


def equalize(images: Tensor, value: Tensor) -> Tensor:
    """Equalise each channel's histogram."""
    b, c, h, w = images.shape
    channel = torch.arange(b * c, device=images.device).view(b, c, 1) * 256
    flat = images.view(b, c, h * w).to(torch.int64)
    histogram = torch.bincount((flat + channel).flatten(), minlength=b * c * 256).view(b, c, 256)
    last = histogram.gather(2, flat.amax(dim=2, keepdim=True))
    step = (h * w - last).div(255, rounding_mode="floor")
    before = histogram.cumsum(dim=2) - histogram
    tones = torch.arange(256, device=images.device)
    table = (before + step.div(2, rounding_mode="floor")).div(step.clamp(min=1), rounding_mode="floor")
    return _lookup(images, torch.where(step > 0, table.clamp_(max=255), tones).to(torch.uint8))


def contrast(images: Tensor, value: Tensor) -> Tensor:
    """Blend with the rounded mean luma."""
    luma = grey(images).flatten(1)
    count = luma.shape[1]
    mean = (2 * luma.sum(dim=1, dtype=torch.int64) + count).div(2 * count, rounding_mode="floor")
    return _blend(mean.view(-1, 1, 1, 1).to(torch.float32), images, value)


def color(images: Tensor, value: Tensor) -> Tensor:
    """Blend with the luma."""
    return images if images.shape[1] == 1 else _blend(grey(images).to(torch.float32), images, value)


def brightness(images: Tensor, value: Tensor) -> Tensor:
    """Blend with black."""
    return _blend(torch.zeros((), device=images.device), images, value)


def sharpness(images: Tensor, value: Tensor) -> Tensor:
    """Blend with the image smoothed by [[1, 1, 1], [1, 5, 1], [1, 1, 1]] / 13; the border stays."""
    smooth = images.to(torch.float32)
    if min(images.shape[2:]) > 2:
        total = smooth[:, :, :-2] + smooth[:, :, 1:-1] + smooth[:, :, 2:]
        total = total[:, :, :, :-2] + total[:, :, :, 1:-1] + total[:, :, :, 2:]
        centre = smooth[:, :, 1:-1, 1:-1]
        centre.copy_(total.add_(centre, alpha=4.0).div_(13.0).add_(0.5).floor_())
    return _blend(smooth, images, value)


def cutout(images: Tensor, value: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Fill a square of side value * side about (x, y) in [0, 1], cut at the border, with grey."""
    _, c, h, w = images.shape
    rows = _near(h, y, value)
    columns = _near(w, x, value)
    fill = torch.tensor(_CUTOUT_FILL if c == 3 else (_CUTOUT_GREY,), dtype=torch.uint8, device=images.device)
    return torch.where((rows[:, :, None] & columns[:, None, :])[:, None], fill.view(1, -1, 1, 1), images)


def _near(count: int, centre: Tensor, length: Tensor) -> Tensor:
    """Mark the pixels (B, count) within length / 2 of the centre, both as shares of the side."""
    pixels = (torch.arange(count, dtype=torch.float32, device=centre.device) + 0.5) / count
    return (pixels - centre[:, None]).abs() < length[:, None] / 2.0


def _matrix(like: Tensor, entries: tuple[Tensor | float, ...]) -> Tensor:
    """Stack six entries, each a number or (B,), to (B, 2, 3) float64."""
    columns = [
        e.to(torch.float64) if isinstance(e, Tensor) else torch.full_like(like, e, dtype=torch.float64) for e in entries
    ]
    return torch.stack(columns, dim=1).view(-1, 2, 3)


def _lookup(images: Tensor, table: Tensor) -> Tensor:
    """Send every byte through its image's and channel's (B, C, 256) table."""
    return table.gather(2, images.flatten(2).to(torch.int64)).view_as(images)


def _blend(degenerate: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """Return degenerate + factor * (images - degenerate), cut to bytes."""
    mixed = (images - degenerate).mul_(factor.view(-1, 1, 1, 1)).add_(degenerate)
    return mixed.clamp_(0.0, 255.0).to(torch.uint8)
