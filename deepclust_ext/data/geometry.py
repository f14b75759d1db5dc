"""Random geometry as one affine map an image, sampled once.

Every map takes a point of the output, in coordinates where the image is [-1, 1] x [-1, 1], to the point of the
input it shows. Maps are (B, 2, 3) tensors [A | t]; composing them first and sampling once costs one
interpolation, where a chain of transforms would blur the image at every step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Draw (count,) float32 in [low, high) on the generator's device."""
    draws = torch.rand(count, generator=generator, device=generator.device)
    return draws.mul_(high - low).add_(low)


def affine_matrix(
    *,
    angle: Tensor,
    scale: Tensor,
    stretch: Tensor,
    shear: Tensor,
    shift_x: Tensor,
    shift_y: Tensor,
    aspect: float = 1.0,
) -> Tensor:
    """Compose rotation, shear, stretch, scale and shift, as seen on the image's content.

    Parameters
    ----------
    angle : Tensor
        (B,) radians, counter-clockwise on the screen.
    scale : Tensor
        (B,) size of the content in the output relative to the input; below 1 it shrinks.
    stretch : Tensor
        (B,) width over height, at constant area.
    shear : Tensor
        (B,) tangent of the horizontal slant.
    shift_x, shift_y : Tensor
        (B,) movement of the content, as a share of the side.
    aspect : float
        Width over height of the image, so that a rotation stays one when the image is not square.

    Returns
    -------
    Tensor
        (B, 2, 3) float32 map from output to input.
    """
    root = stretch.sqrt()
    wide, high = 1.0 / (scale * root), root / scale
    cos, sin = angle.cos(), angle.sin()
    # Output to input is the inverse of what the content does: unshift, unscale, unrotate, unshear.
    a, b = wide * cos, -sin * high
    c, d = wide * sin, cos * high
    a, b = a - shear * c, b - shear * d
    b, c = b / aspect, c * aspect
    tx, ty = -2.0 * shift_x, -2.0 * shift_y
    rows = torch.stack([a, b, a * tx + b * ty, c, d, c * tx + d * ty], dim=1)
    return rows.view(-1, 2, 3)


def crop_matrix(matrix: Tensor, *, width: Tensor, height: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Look at a window of what `matrix` shows.

    Parameters
    ----------
    matrix : Tensor
        (B, 2, 3) map from output to input.
    width, height : Tensor
        (B,) sides of the window, as shares of the image's.
    x, y : Tensor
        (B,) place of the window in [0, 1]: 0 is flush with the left or upper border, 1 with the other.

    Returns
    -------
    Tensor
        (B, 2, 3).
    """
    left, top = (2.0 * x - 1.0) * (1.0 - width), (2.0 * y - 1.0) * (1.0 - height)
    linear, offset = matrix[:, :, :2], matrix[:, :, 2]
    offset = offset + linear[:, :, 0] * left[:, None] + linear[:, :, 1] * top[:, None]
    linear = linear * torch.stack([width, height], dim=1)[:, None, :]
    return torch.cat([linear, offset[:, :, None]], dim=2)


def sample(images: Tensor, matrix: Tensor, size: tuple[int, int]) -> Tensor:
    """Show each image through its map, bilinearly; outside the image is 0.

    Parameters
    ----------
    images : Tensor
        (B, C, H, W) float32.
    matrix : Tensor
        (B, 2, 3) map from output to input.
    size : (int, int)
        Height and width of the result.

    Returns
    -------
    Tensor
        (B, C, *size) float32.
    """
    height, width = size
    matrix = matrix.to(images.device)
    x = _centres(width, images)
    y = _centres(height, images)
    # The grid lies in memory as (B, 2, H, W): grid_sample reads planes without unweaving pairs, and an outer sum
    # fills them in two passes where affine_grid multiplies matrices.
    rows = matrix[:, :, 1, None] * y + matrix[:, :, 2, None]
    columns = matrix[:, :, 0, None] * x
    grid = rows[:, :, :, None] + columns[:, :, None, :]
    return F.grid_sample(
        images, grid.permute(0, 2, 3, 1), mode="bilinear", padding_mode="zeros", align_corners=False
    )


def _centres(count: int, like: Tensor) -> Tensor:
    """Return the centres of `count` pixels across [-1, 1]."""
    return (torch.arange(count, dtype=torch.float32, device=like.device) * 2.0 + 1.0) / count - 1.0
