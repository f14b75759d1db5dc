"""Pictures to embed, one after another: of a folder by file, of an array by row; never all in memory at once."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from deepclust_ext._optional import require
from deepclust_ext.data.decode import decode
from deepclust_ext.data.folder import classes_of, remark
from deepclust_ext.data.images import ImageData
from deepclust_ext.data.load import KNOWN_NAMES, holds_embeddings, load_data
from deepclust_ext.data.load_checks import existing_path, is_folder, refuse_test_split
from deepclust_ext.data.pool import DECODE_BYTES, Budget
from deepclust_ext.data.reading import Frame, Reading
from deepclust_ext.data.stored import stored
from deepclust_ext.embed.rows import NEVER, Stamp

# A file may change once more within the time that its date is rounded to.
_RACY_NS = 2 * 10**9


class Pictures(Protocol):
    """What can be embedded: named files, each with a stamp that changes when it does, and one frame or several."""

    files: list[str]
    skipped: list[tuple[str, str]]
    source: str

    def stamp(self, file: str) -> Stamp:
        """What tells whether a file is as it was."""

    def read(self, file: str) -> list[Frame]:
        """Its frames as squares, or the reason why there are none."""

    def labels(self, names: list[str]) -> Tensor | None:
        """Classes of the frames that were embedded, if there are any."""

    def remark(self, several: list[str], highest: list[int | None]) -> None:
        """Say what of the files that were read just now is not as it may seem."""


def pictures_of(data: Any, reading: Reading, *, split: str = "train", folder_labels: bool = False) -> Pictures:
    """Pictures of a folder, an archive, an array, a data set or a name, as `load_data` takes them."""
    if holds_embeddings(data):
        raise ValueError(f"embed: 'data' must be images, got embeddings ({data!r:.80}); they are data of fit already")
    if isinstance(data, (str, os.PathLike)) and os.fspath(data) not in KNOWN_NAMES:
        path = existing_path(os.fspath(data))
        if is_folder(path):
            refuse_test_split(split, f"the {'folder' if path.is_dir() else 'archive'} {str(path)!r}")
            return _Files(path, reading, folder_labels)
    # Loading refuses classes from sub-folders where there are none.
    return _Rows(load_data(data, split=split, folder_labels=folder_labels, min_images=1), reading)


class _Files:
    """The files below a folder, or in archives."""

    def __init__(self, path: Path, reading: Reading, folder_labels: bool) -> None:
        self.path, self.reading, self.folder_labels = path, reading, folder_labels
        self.stored = stored(path)
        self.files, self.skipped = self.stored.files, self.stored.skipped
        self.source = str(path)
        self._budget = Budget(DECODE_BYTES)
        if folder_labels:
            classes_of(path, list(map(self.stored.inner, self.files)))  # before the work, not after it

    def stamp(self, file: str) -> Stamp:
        """Size and time of modification."""
        try:
            status = os.stat(self.stored.where(file))
        except OSError:
            return NEVER
        return NEVER if status.st_mtime_ns > time.time_ns() - _RACY_NS else (status.st_size, status.st_mtime_ns)

    def read(self, file: str) -> list[Frame]:
        """Decode a file."""
        return self.stored.read(file, self.reading, self._budget.reserve)

    def labels(self, names: list[str]) -> Tensor | None:
        """The numbers of sub-folders, or what archives bring."""
        if not self.folder_labels:
            return self.stored.labels(names)
        return classes_of(self.path, list(map(self.stored.inner, names)))

    def remark(self, several: list[str], highest: list[int | None]) -> None:
        """Further frames, and darkness."""
        if highest:
            remark(self.path, self.reading, several, highest)


class _Rows:
    """The rows of an array of images; a row's stamp is made of its pixels."""

    def __init__(self, images: ImageData, reading: Reading) -> None:
        self.images, self.reading = images, reading
        self._numbers = {name: number for number, name in enumerate(images.names)}
        self.files, self.skipped, self.source = list(images.names), list(images.skipped), images.source

    def _pixels(self, file: str) -> np.ndarray[Any, Any]:
        image = self.images.images[self._numbers[file]]
        if image.dtype != torch.uint8:
            image = (image.float() * 255.0).round().clamp(0, 255).to(torch.uint8)
        pixels = image.permute(1, 2, 0).contiguous().numpy()
        return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels

    def stamp(self, file: str) -> Stamp:
        """Size and digest of an image's pixels."""
        pixels = self._pixels(file)
        digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()
        return pixels.nbytes, int.from_bytes(digest[:8], "big") >> 1

    def read(self, file: str) -> list[Frame]:
        """Scale and cut an image."""
        picture = require("PIL.Image").fromarray(self._pixels(file))
        return [Frame(file, decode(picture, self.reading.target).pixels)]

    def labels(self, names: list[str]) -> Tensor | None:
        """The images' own."""
        if self.images.labels is None:
            return None
        return self.images.labels[[self._numbers[name] for name in names]]

    def remark(self, several: list[str], highest: list[int | None]) -> None:
        """Nothing can be amiss that loading does not say."""
