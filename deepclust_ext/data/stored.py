"""Images that are files: below a folder, or in tar archives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from deepclust_ext.data.reading import Frame, Reading, read_file
from deepclust_ext.data.shards import SUFFIX, ShardFiles
from deepclust_ext.data.walk import list_files


class Stored(Protocol):
    """Files of images by name, in order; `skipped` names what is no image, with the reason."""

    path: Path
    files: list[str]
    skipped: list[tuple[str, str]]

    def read(self, name: str, reading: Reading, reserve: Any) -> list[Frame]:
        """The frames of a file, or the reason why there are none; see `read_file`."""

    def where(self, name: str) -> Path:
        """The file that changes if the image does."""

    def inner(self, name: str) -> str:
        """A frame's name without what tells archives apart: its first folder is its class, where folders are."""

    def labels(self, names: Sequence[str]) -> Tensor | None:
        """Classes that the files bring, if they do."""


class FolderFiles:
    """The files below a folder; see `list_files`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files, self.skipped = list_files(path)

    def read(self, name: str, reading: Reading, reserve: Any) -> list[Frame]:
        """Decode a file."""
        return read_file(self.path, name, reading, reserve)

    def where(self, name: str) -> Path:
        """The file."""
        return self.path / name

    def inner(self, name: str) -> str:
        """The name."""
        return name

    def labels(self, names: Sequence[str]) -> None:
        """None: sub-folders are classes only where that is said."""


def stored(path: Path) -> Stored:
    """The images of a folder or a tar archive; a folder without images, but with archives, is that of its archives."""
    if not path.is_dir():
        return ShardFiles(path)
    found = FolderFiles(path)
    shards = sorted(name for name, _ in found.skipped if _is_shard(path / name))
    if found.files or not shards:
        return found
    return ShardFiles(path, shards, [each for each in found.skipped if each[0] not in set(shards)])


def in_shards(data: str | os.PathLike[str]) -> bool:
    """Whether the images that `load_items` takes from a path are in tar archives."""
    path = Path(data)
    return _is_shard(path) if not path.is_dir() else isinstance(stored(path), ShardFiles)


def _is_shard(path: Path) -> bool:
    return path.suffix.lower() == SUFFIX and path.is_file()
