"""Random geometry as one affine map an image, sampled once.

Every map takes a point of the output, in coordinates where the image is [-1, 1] x [-1, 1], to the point of
the input it shows. Maps are (B, 2, 3) tensors [A | t]; composing them first and sampling once costs one
interpolation, where a chain of transforms would blur the image at every step.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from deepclust_ext.data.images import as_float

# Pixels sampled at a time on the CPU: a grid of 256 KiB.
_CHUNK_PIXELS = 2**15


def uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Draw (count,) float32 in [low, high] on the generator's device."""
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
    """Compose, as seen on the content: stretch and scale, slant, rotation, shift.

    Parameters
    ----------
    angle : Tensor
        (B,) float32, radians, counter-clockwise on the screen.
    scale : Tensor
        (B,) size of the content in the output relative to the input; below 1 it shrinks.
    stretch : Tensor
        (B,) width over height, at constant area.
    shear : Tensor
        (B,) tangent of the slant; positive leans the top to the left, as y points down.
    shift_x, shift_y : Tensor
        (B,) movement of the content to the right and down, as a share of the side.
    aspect : float
        Width over height of the image, so that a rotation stays one when the image is not square.

    Returns
    -------
    Tensor
        (B, 2, 3) float32 map from output to input.

    Examples
    --------
    >>> one, zero = torch.ones(1), torch.zeros(1)
    >>> affine_matrix(angle=zero, scale=2 * one, stretch=one, shear=zero, shift_x=zero, shift_y=zero).abs()
    tensor([[[0.5000, 0.0000, 0.0000],
             [0.0000, 0.5000, 0.0000]]])
    """
    cos, sin = angle.cos(), angle.sin()
    # The map is the inverse of what the content does, so the steps run backwards: unshift, unrotate, unslant,
    # unscale, in coordinates where a pixel is square.
    a, b = cos - shear * sin, -sin - shear * cos
    root = stretch.sqrt()
    across, down = 1.0 / (scale * root), root / scale
    a, b, c, d = a * across, b * across / aspect, sin * down * aspect, cos * down
    tx, ty = -2.0 * shift_x, -2.0 * shift_y
    return torch.stack([a, b, a * tx + b * ty, c, d, c * tx + d * ty], dim=1).view(-1, 2, 3)


def crop_matrix(matrix: Tensor, *, width: Tensor, height: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Look at a window of what `matrix` shows, enlarged to the full size.

    Parameters
    ----------
    matrix : Tensor
        (B, 2, 3) map from output to input.
    width, height : Tensor
        (B,) sides of the window, as shares of the image's; a negative width mirrors it.
    x, y : Tensor
        (B,) place of the window in [0, 1]: 0 is flush with the left or upper border, 1 with the other.

    Returns
    -------
    Tensor
        (B, 2, 3).
    """
    left = (2.0 * x - 1.0) * (1.0 - width.abs())
    top = (2.0 * y - 1.0) * (1.0 - height)
    linear, offset = matrix[:, :, :2], matrix[:, :, 2]
    offset = offset + linear[:, :, 0] * left[:, None] + linear[:, :, 1] * top[:, None]
    linear = linear * torch.stack([width, height], dim=1)[:, None, :]
    return torch.cat([linear, offset[:, :, None]], dim=2)


def elastic_offsets(amount: Tensor, size: tuple[int, int]) -> Tensor:
    """Spread displacements of a coarse grid of control points smoothly over all pixels.

    Parameters
    ----------
    amount : Tensor
        (B, 2, G, G) float32, how far each control point moves across and down, in half sides of the image.
    size : (int, int)
        Height and width of the view.

    Returns
    -------
    Tensor
        (B, 2, *size) float32, bicubic between the control points, for `sample`.
    """
    b, _, side, _ = amount.shape
    points = torch.eye(side * side, device=amount.device).view(side * side, 1, side, side)
    # Interpolation is linear in the control points: as one product it costs less than as an interpolation.
    basis = F.interpolate(points, size=size, mode="bicubic", align_corners=True).view(side * side, -1)
    return (amount.reshape(b * 2, side * side) @ basis).view(b, 2, *size)


def sample(
    images: Tensor,
    matrix: Tensor,
    size: tuple[int, int],
    *,
    padding: str = "zeros",
    offsets: Tensor | None = None,
) -> Tensor:
    """Show each image through its map, bilinearly.

    Parameters
    ----------
    images : Tensor
        (B, C, H, W) uint8, or floating point in [0, 1].
    matrix : Tensor
        (B, 2, 3) map from output to input, on any device.
    size : (int, int)
        Height and width of the result.
    padding : {"zeros", "border", "reflection"}
        What lies outside the image.
    offsets : Tensor, optional
        (B, 2, *size) float32, added to the points of the input (x, then y), in half sides.

    Returns
    -------
    Tensor
        (B, C, *size) float32, on the images' device.

    Examples
    --------
    >>> identity = torch.eye(2, 3)[None]
    >>> sample(torch.ones(1, 1, 2, 2), identity, (2, 2)).flatten()
    tensor([1., 1., 1., 1.])
    """
    (b, c), (height, width) = images.shape[:2], size
    matrix = matrix.to(images.device)
    # The grid lies in memory as (B, 2, H, W): grid_sample reads planes without unweaving pairs, and an outer
    # sum fills them in one pass where affine_grid multiplies matrices.
    rows = matrix[:, :, 1, None] * _centres(height, images) + matrix[:, :, 2, None]
    columns = matrix[:, :, 0, None] * _centres(width, images)
    views = torch.empty((b, c, height, width), dtype=torch.float32, device=images.device)
    # On the CPU in pieces: a grid that fits the cache and that malloc can reuse is faster than fresh pages.
    step = max(1, _CHUNK_PIXELS // (height * width)) if images.device.type == "cpu" else max(1, b)
    for start in range(0, b, step):
        part = slice(start, start + step)
        grid = rows[part, :, :, None] + columns[part, :, None, :]
        if offsets is not None:
            grid = grid.add_(offsets[part])
        grid = grid.permute(0, 2, 3, 1)
        views[part] = F.grid_sample(
            as_float(images[part]), grid, mode="bilinear", padding_mode=padding, align_corners=False
        )
    return views


def _centres(count: int, like: Tensor) -> Tensor:
    """Return the centres of `count` pixels across [-1, 1]."""
    return (torch.arange(count, dtype=torch.float32, device=like.device) * 2.0 + 1.0) / count - 1.0
