"""How files of images are read, and one file read so: its frames, or the reason why there are none."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from deepclust_ext import _checks as check
from deepclust_ext._optional import require
from deepclust_ext.data.decode import Decoded, decode
from deepclust_ext.data.square import Square

FRAMES = ("first", "all")
# Formats whose further frames are images of their own; the others hold previews or stereo pairs (MPO).
FRAME_FORMATS = frozenset({"GIF", "PNG", "TIFF", "WEBP"})
HEIF = frozenset({".heic", ".heif"})


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Parameters
    ----------
    image_size : int, optional
        Scale the shorter side to this and keep the centre square.
    max_pixels : int, optional
        Images with more are skipped; by default Pillow's limit (89 million).
    frames : {"first", "all"}
        What is taken of files with several frames.
    stretch : int, optional
        The value of 16-bit pixels that becomes white, 65535 by default.
    square : Square, optional
        Instead of `image_size`: the square that a network wants.

    Raises
    ------
    TypeError, ValueError
        If one of them cannot be.
    """

    image_size: int | None = None
    max_pixels: int | None = None
    frames: str = "first"
    stretch: int | None = None
    square: Square | None = None

    def __post_init__(self) -> None:
        if self.max_pixels is not None:
            check.whole_number("load_data", "max_pixels", self.max_pixels, at_least=1)
        check.choice("load_data", "frames", self.frames, FRAMES)
        if self.stretch is not None:
            check.whole_number("load_data", "stretch", self.stretch, at_least=1, at_most=65535)

    @property
    def target(self) -> Square | None:
        """What a picture becomes; None where it keeps its size."""
        return Square(self.image_size) if self.square is None and self.image_size is not None else self.square


@dataclass(frozen=True)
class Frame:
    """One frame of a file.

    Parameters
    ----------
    name : str
        The file's, with #NUMBER where all frames are taken.
    pixels : ndarray of uint8, optional
        (H, W) or (H, W, 3).
    reason : str
        Why there are no pixels.
    highest : int, optional
        The highest value of 16-bit pixels.
    more : bool
        Whether the file has frames that were not taken.
    """

    name: str
    pixels: NDArray[np.uint8] | None = None
    reason: str = ""
    highest: int | None = None
    more: bool = False


def read_file(root: Path, name: str, reading: Reading, reserve: Any) -> list[Frame]:
    """Read one file of a folder; whatever is wrong with it becomes a reason, as one file must not end a run.

    Parameters
    ----------
    root : Path
        The folder.
    name : str
        The file's path in it.
    reading : Reading
        How.
    reserve : callable
        `reserve(bytes)` is a block within which so much memory may be used.
    """
    path = root / name
    if path.exists() and not path.is_file():
        return [Frame(name, reason="not a regular file")]  # a pipe would be waited for, for ever
    return read_picture(path, name, reading, reserve)


def read_picture(file: Path | BinaryIO, name: str, reading: Reading, reserve: Any) -> list[Frame]:
    """Read a file by its path, or one that is open and is closed here; else as `read_file`."""
    pil_image = require("PIL.Image")
    try:
        if missing := _missing_decoder(name):
            return [Frame(name, reason=missing)]
        with contextlib.nullcontext() if isinstance(file, Path) else file, pil_image.open(file) as picture:
            square = reading.target
            if square is not None:
                # JPEG's decoder can halve the size on its own, thrice; twice what is needed keeps the scaling smooth.
                picture.draft(None, (2 * square.short, 2 * square.short))
            # Pixels as they are stored, then as RGB or RGBA, upright, and as an array: 16 bytes for each.
            with reserve(16 * picture.width * picture.height):
                return list(_frames(picture, name, reading))
    except (pil_image.DecompressionBombError, pil_image.DecompressionBombWarning) as error:
        return [Frame(name, reason=_bomb(str(error)))]
    except pil_image.UnidentifiedImageError:
        return [Frame(name, reason="not a readable image")]
    except Exception as error:
        # Damaged files raise whatever the decoder trips over (OSError, SyntaxError, struct.error, ...).
        return [Frame(name, reason=f"{type(error).__name__}: {error}")]


def _frames(picture: Any, name: str, reading: Reading) -> Iterator[Frame]:
    """The frames of an open file."""
    white = reading.stretch or 65535
    several = picture.format in FRAME_FORMATS
    count = getattr(picture, "n_frames", 1) if several and reading.frames == "all" else 1
    if count == 1:
        found = decode(picture, reading.target, white=white)
        yield _frame(name, found, more=several and reading.frames == "first" and _has_more(picture))
        return
    digits = len(str(count - 1))
    for number in range(count):
        frame = f"{name}#{number:0{digits}}"
        try:
            picture.seek(number)
            yield _frame(frame, decode(picture, reading.target, white=white))
        except Exception as error:
            yield Frame(frame, reason=f"{type(error).__name__}: {error}")


def _frame(name: str, found: Decoded, *, more: bool = False) -> Frame:
    """A frame with pixels."""
    return Frame(name, found.pixels, highest=found.highest, more=more)


def _has_more(picture: Any) -> bool:
    """Whether there is a second frame; what follows the first may be damaged, and is not wanted."""
    try:
        return bool(picture.is_animated)
    except Exception:
        return False


def _bomb(message: str) -> str:
    """Say why an enormous picture is skipped, and what allows it, from what Pillow says."""
    found = re.search(r"\((\d+) pixels\).* (\d+) pixels", message)
    if found is None:
        return f"too large to open safely: {message}"
    return f"too large to open safely: {found[1]} pixels, more than {found[2]}; max_pixels={found[1]} allows it"


def _missing_decoder(name: str) -> str:
    """Which package a file needs that is not here; registers the decoder of HEIC images if it is."""
    extension = os.path.splitext(name)[1].lower()
    if extension in HEIF:
        try:
            importlib.import_module("pillow_heif").register_heif_opener()
        except ImportError:
            return "needs the package pillow-heif: pip install 'deepclust_ext[heif]'"
    if extension == ".avif" and not require("PIL.features").check("avif"):
        return "needs Pillow 11.3 or newer, built with AVIF"
    return ""
