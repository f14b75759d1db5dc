"""One picture to one uint8 array, whatever its mode: the part of Pillow's zoo that folders of images meet."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepclust_ext._optional import require

# 16-bit pictures appear under several modes, one a byte order, and as "I" in older versions of Pillow.
_DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def decode(picture: Any, image_size: int | None) -> NDArray[np.uint8]:
    """Turn a PIL image into (H, W) grey or (H, W, 3) RGB uint8.

    Parameters
    ----------
    picture : PIL.Image.Image
        Any mode. 16-bit values are divided by 257, floating point ones must be in [0, 1], transparent pixels
        are laid on white, and the EXIF orientation is applied.
    image_size : int, optional
        Scale the shorter side to this (bilinear, antialiased) and keep the centre square.

    Returns
    -------
    ndarray
        Two axes when all three channels agree in every pixel, three otherwise.

    Raises
    ------
    ValueError
        If pixel values have no defined brightness (32-bit integers, floats outside [0, 1]).
    OSError
        If the file behind the picture is truncated or damaged.
    """
    pil_image = require("PIL.Image")
    picture = require("PIL.ImageOps").exif_transpose(picture)
    if picture.mode in _DEEP_MODES or picture.mode == "F":
        picture = pil_image.fromarray(_to_bytes(np.asarray(picture), picture.mode))
    if picture.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        canvas = pil_image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = pil_image.alpha_composite(canvas, picture)
    picture = picture.convert("L" if picture.mode in ("1", "L") else "RGB")
    if image_size is not None:
        picture = _resize(picture, image_size, pil_image.Resampling.BILINEAR)
    pixels = np.asarray(picture, dtype=np.uint8)
    if pixels.ndim == 3 and (pixels == pixels[:, :, :1]).all():
        return pixels[:, :, 0]
    return pixels


def _to_bytes(values: NDArray[Any], mode: str) -> NDArray[np.uint8]:
    """Scale deep grey values to 0..255 by the range of their type, never by their own extremes.

    A scale of its own for each image would make brightness incomparable between images.
    """
    low, high = values.min(), values.max()
    if mode == "F":
        if not (low >= 0.0 and high <= 1.0):
            raise ValueError(f"floating point pixels must be in [0, 1], got {low:g} to {high:g}")
        return np.round(values * 255.0).astype(np.uint8)
    if low < 0 or high > 65535:
        raise ValueError(f"integer pixels must be in 0..65535, got {low} to {high}")
    # 257 = 65535 / 255; the half makes the division round.
    return ((values.astype(np.int64) + 128) // 257).astype(np.uint8)


def _resize(picture: Any, size: int, filter_: Any) -> Any:
    """Scale the shorter side to `size` and keep the centre square."""
    width, height = picture.size
    short = min(width, height)
    width, height = max(size, round(width * size / short)), max(size, round(height * size / short))
    if picture.size != (width, height):
        picture = picture.resize((width, height), filter_)
    left, top = (width - size) // 2, (height - size) // 2
    return picture.crop((left, top, left + size, top + size))
