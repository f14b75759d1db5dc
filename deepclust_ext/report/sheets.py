"""Small copies of images, side by side on a few sheets: thousands of pictures in a handful of JPEG files."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepclust_ext._optional import require
from deepclust_ext.report.known import Pictures, Pixels

COLUMNS = 32
PER_SHEET = COLUMNS * COLUMNS
# JPEG's quality, and what all sheets together may take with it before base64 adds a third: the page is to stay below
# 20 MB, and small where it can.
QUALITIES = ((95, 2 * 2**20), (85, 6 * 2**20), (70, 11 * 2**20), (50, 11 * 2**20), (30, 11 * 2**20))
BACKGROUND = 128


@dataclass(frozen=True)
class Sheets:
    """Thumbnails of P images in their order; image i is tile i % 1024 of sheet i // 1024, 32 tiles a line.

    Parameters
    ----------
    side : int
        Of a tile, in pixels.
    files : tuple of bytes
        JPEG files.
    missing : frozenset of int
        Images that could not be read.
    """

    side: int
    files: tuple[bytes, ...]
    missing: frozenset[int] = frozenset()

    def urls(self) -> list[str]:
        """The sheets as data URLs."""
        return ["data:image/jpeg;base64," + base64.b64encode(file).decode() for file in self.files]


def tile_side(side: int | None, count: int) -> int:
    """The side of a tile: small images as they are, large ones smaller the more there are.

    Examples
    --------
    >>> tile_side(8, 1797), tile_side(None, 400), tile_side(128, 6000)
    (8, 96, 48)
    """
    most = 96 if count <= 1_000 else 64 if count <= 2_500 else 48
    return most if side is None else min(side, most)


def make_sheets(pictures: Pictures, rows: Sequence[int]) -> Sheets:
    """Read the images of some rows, and put them on sheets.

    Parameters
    ----------
    pictures : Pictures
    rows : sequence of int
        In the order of their tiles.
    """
    side = tile_side(pictures.side, len(rows))
    tiles, missing = [], set()
    for place, pixels in enumerate(pictures.read(rows, side)):
        if pixels is None:
            missing.add(place)
        tiles.append(None if pixels is None else tile(pixels, side))
    colour = any(each is not None and each.ndim == 3 for each in tiles)
    pages = [_page(tiles[first : first + PER_SHEET], side, colour) for first in range(0, len(tiles), PER_SHEET)]
    for quality, limit in QUALITIES:
        files = tuple(_jpeg(page, quality) for page in pages)
        if sum(map(len, files)) <= limit:
            break
    return Sheets(side, files, frozenset(missing))


def tile(pixels: Pixels, side: int) -> Pixels:
    """An image (H, W) or (H, W, 3) whole in a square (side, side), grey beside it where it is none."""
    height, width = pixels.shape[:2]
    longer = max(height, width)
    scaled = pixels
    if longer > side:
        image: Any = require("PIL.Image")
        size = max(1, round(width * side / longer)), max(1, round(height * side / longer))
        scaled = np.asarray(image.fromarray(pixels).resize(size, image.Resampling.BOX))
    if scaled.shape[:2] == (side, side):
        return scaled
    square = np.full((side, side, *pixels.shape[2:]), BACKGROUND, dtype=np.uint8)
    top, left = (side - scaled.shape[0]) // 2, (side - scaled.shape[1]) // 2
    square[top : top + scaled.shape[0], left : left + scaled.shape[1]] = scaled
    return square


def _page(tiles: Sequence[Pixels | None], side: int, colour: bool) -> Pixels:
    """Tiles in lines."""
    lines = -(-len(tiles) // COLUMNS)
    page = np.full((lines * side, COLUMNS * side, *((3,) if colour else ())), BACKGROUND, dtype=np.uint8)
    for place, each in enumerate(tiles):
        if each is not None:
            top, left = side * (place // COLUMNS), side * (place % COLUMNS)
            page[top : top + side, left : left + side] = each[..., None] if colour and each.ndim == 2 else each
    return page


def _jpeg(page: Pixels, quality: int) -> bytes:
    """Encode a sheet; without subsampling, so that tiles do not run into each other.

    Pillow's `optimize` is left out: its buffer is too small for sheets of noise.
    """
    buffer = io.BytesIO()
    require("PIL.Image").fromarray(page).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()
