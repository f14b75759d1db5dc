"""What is refused of data before any of it is read, and in which words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from deepclust_ext.data.array_shards import array_shards
from deepclust_ext.data.embeddings import EmbeddingData
from deepclust_ext.data.images import ImageData
from deepclust_ext.data.named import KNOWN_NAMES
from deepclust_ext.data.shards import SUFFIX

SPLITS = ("train", "test", "all")
# Files that hold data; a folder holds images, and so does an archive.
FILES = (".npz", ".npy", ".parquet", SUFFIX)


def check_arguments(split: str, image_size: int | None, channels: int | None) -> None:
    """Refuse settings that no data could satisfy."""
    if split not in SPLITS:
        raise ValueError(f"load_data: 'split' must be one of {', '.join(SPLITS)}, got {split!r}")
    if image_size is not None and (not isinstance(image_size, int) or isinstance(image_size, bool) or image_size < 1):
        raise ValueError(f"load_data: 'image_size' must be a positive whole number, got {image_size!r}")
    if channels not in (None, 1, 3):
        raise ValueError(f"load_data: 'channels' must be 1, 3 or None, got {channels!r}")


def existing_path(name: str) -> Path:
    """Return the folder or file of data called `name`, or say which names are known."""
    if not name:  # Path("") is the working directory
        raise ValueError("load_data: 'data' must be a path or a name, got an empty string")
    path = Path(name)
    if path.is_dir() or (path.is_file() and path.suffix in FILES):
        return path
    kinds = f"{', '.join(FILES[:-1])} or {FILES[-1]}"
    if path.is_file():
        raise ValueError(f"load_data: 'data' must be a folder, or a file that ends in {kinds}, got the file {name!r}")
    raise ValueError(
        f"load_data: 'data' must be a folder, a file that ends in {kinds}, or a known name, got {name!r}, and there "
        f"is no such file or folder; known names: {', '.join(KNOWN_NAMES)}"
    )


def refuse_test_split(split: str, what: str) -> None:
    """Data in one piece has no test split; taking all of it instead would be a silent mistake."""
    if split == "test":
        raise ValueError(
            f"load_data: 'split' must be 'train' or 'all' for data in one piece, got 'test' for {what}; "
            "pass the test images as data of their own"
        )


def is_folder(data: Any) -> bool:
    """Tell whether the data is a path or a name that could only be a folder, or an archive, of image files."""
    if not isinstance(data, (str, os.PathLike)) or os.fspath(data) in KNOWN_NAMES:
        return False
    return is_archive(data) or not (Path(data).is_file() or array_shards(data))


def is_archive(data: Any) -> bool:
    """Tell whether the data is the path of a tar archive."""
    return isinstance(data, (str, os.PathLike)) and Path(data).suffix == SUFFIX and Path(data).is_file()


def describe(data: Any) -> str:
    """Name a piece of data in a message."""
    return repr(os.fspath(data)) if isinstance(data, (str, os.PathLike)) else f"an {type(data).__name__}"


def too_few(data: ImageData | EmbeddingData, least: int) -> str:
    """Say how many images were found and what became of the rest."""
    one = data.kind.removesuffix("s")
    found = f"no {one}" if len(data) == 0 else f"only {len(data)} {data.kind if len(data) > 1 else one}"
    message = f"load_data: 'data' must hold at least {least} {data.kind}, got {found} in {data.source}"
    if data.skipped:
        path, reason = data.skipped[0]
        message += f" ({len(data.skipped)} files skipped, the first {path!r}: {reason})"
    return message
