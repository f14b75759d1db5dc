"""One picture to one uint8 array, whatever its mode: the part of Pillow's zoo that folders of images meet."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepclust_ext._optional import require
from deepclust_ext.data.images import ROUNDING
from deepclust_ext.data.square import Square

# 16-bit pictures appear under several modes, one a byte order, and as "I" in older versions of Pillow.
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_DEEP_WHITE = 65535
_ORIENTATION = 0x0112


class Decoded(NamedTuple):
    """Pixels (H, W) or (H, W, 3) uint8, and the highest value where they came from 16 bits."""

    pixels: NDArray[np.uint8]
    highest: int | None


def decode(picture: Any, image_size: int | Square | None, *, white: int = _DEEP_WHITE) -> Decoded:
    """Turn a PIL image into (H, W) grey or (H, W, 3) RGB uint8.

    Parameters
    ----------
    picture : PIL.Image.Image
        Any mode. 16-bit values are divided by 257, floating point ones must be in [0, 1], transparent pixels
        are laid on white, and the EXIF orientation is applied.
    image_size : int or Square, optional
        Scale the shorter side to this (bilinear, antialiased) and keep the centre square.
    white : int
        The 16-bit value that becomes 255; what is above becomes 255 too.

    Returns
    -------
    decoded : Decoded
        Pixels with two axes when all three channels agree in every pixel, three otherwise.

    Raises
    ------
    ValueError
        If pixel values have no defined brightness (32-bit integers, floats outside [0, 1]).
    OSError
        If the file behind the picture is truncated or damaged.
    """
    pil_image = require("PIL.Image")
    picture = _upright(picture)
    square = Square(image_size) if isinstance(image_size, int) else image_size
    box = None
    if square is not None:
        picture, box = _centre(picture, square)
    highest = None
    if picture.mode in _DEEP_MODES or picture.mode == "F":
        values = np.asarray(picture)
        highest = None if picture.mode == "F" else int(values.max())
        picture = pil_image.fromarray(_to_bytes(values, picture.mode, white))
    if picture.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        canvas = pil_image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = pil_image.alpha_composite(canvas, picture)
    picture = picture.convert("L" if picture.mode in ("1", "L") else "RGB")
    if square is not None:
        kind = getattr(pil_image.Resampling, square.interpolation.upper())
        picture = picture.resize((square.size, square.size), kind, box)
    pixels = np.asarray(picture, dtype=np.uint8)
    if pixels.ndim == 3 and (pixels == pixels[:, :, :1]).all():
        return Decoded(pixels[:, :, 0], highest)
    return Decoded(pixels, highest)


def _upright(picture: Any) -> Any:
    """Apply the EXIF orientation, the one thing that is read of EXIF: all else in it may be damaged."""
    # First, and not in the block: some formats load to find EXIF, and damaged pixels must be noticed.
    picture.load()
    try:
        orientation = picture.getexif().get(_ORIENTATION, 1)
    except Exception:
        return picture
    turn = require("PIL.Image").Transpose
    turns = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    return picture.transpose(turns[orientation]) if orientation in turns else picture


def _to_bytes(values: NDArray[Any], mode: str, white: int) -> NDArray[np.uint8]:
    """Scale deep grey values to 0..255 by the range of their type, never by their own extremes.

    A scale of its own for each image would make brightness incomparable between images.
    """
    low, high = values.min(), values.max()
    if mode == "F":
        if not (low >= -ROUNDING and high <= 1.0 + ROUNDING):
            raise ValueError(f"floating point pixels must be in [0, 1], got {low:.9g} to {high:.9g}")
        return np.asarray(np.round(np.clip(values, 0.0, 1.0) * 255.0), dtype=np.uint8)
    if low < 0 or high > _DEEP_WHITE:
        raise ValueError(f"integer pixels must be in 0..65535, got {low} to {high}")
    # 255 v / white, rounded; the products stay below 2^32.
    scaled = np.minimum(values, white).astype(np.uint32) * 510 + white
    return np.asarray(scaled // (2 * white), dtype=np.uint8)


def _centre(picture: Any, square: Square) -> tuple[Any, tuple[float, float, float, float]]:
    """Cut a picture to what its centre square is made from; the square's box in that.

    The cut comes before all else: scaled first, a thin picture would become enormous.
    """
    width, height = picture.size
    cut: list[list[int]] = []
    box: list[list[float]] = []
    for length, target in zip((width, height), square.scaled(width, height), strict=True):
        ratio = length / target
        first = square.first(target)
        last = first + square.size
        # As far as the filter reaches beyond the square.
        reach = math.ceil(square.reach * max(ratio, 1.0)) + 1
        start = max(0, math.floor(first * ratio) - reach)
        end = min(length, math.ceil(last * ratio) + reach)
        cut.append([start, end])
        box.append([first * ratio - start, min(last * ratio, length) - start])
    (left, right), (top, bottom) = cut
    if (left, top, right, bottom) != (0, 0, width, height):
        picture = picture.crop((left, top, right, bottom))
    return picture, (box[0][0], box[1][0], box[0][1], box[1][1])
