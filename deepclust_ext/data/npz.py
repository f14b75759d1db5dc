"""NumPy archives: `x` with or without `y`, or a train and a test half."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deepclust_ext.data.arrays import to_images, to_labels
from deepclust_ext.data.images import ImageData


def npz_splits(path: Path) -> tuple[str, ...]:
    """Tell which splits the archive has, from its keys alone."""
    keys = archive_keys(path)
    _check_keys(path, keys)
    return ("train", "all") if "x" in keys or "x_test" not in keys else ("train", "test", "all")


def archive_keys(path: Path) -> set[str]:
    """The keys of an archive."""
    with open_archive(path) as archive:
        return set(archive.files)


def load_npz(path: Path, split: str) -> ImageData:
    """Read an `.npz` archive.

    Parameters
    ----------
    path : Path
        Archive with the keys x (and y), or x_train (and y_train) and, if there is a test half, x_test
        (and y_test). Other keys are left alone. Pickled objects are never read.
    split : {"train", "test", "all"}
        "all" is the train half followed by the test half; an archive with x is all "train".

    Returns
    -------
    ImageData
        Labels only if every part asked for has them.

    Raises
    ------
    ValueError
        If the file is no archive, lacks the keys (the message lists those found), or has no such split.

    Examples
    --------
    >>> load_npz(Path("images.npz"), "train")  # doctest: +SKIP
    ImageData(images.npz: 60000 images of 1x28x28 torch.uint8, 10 classes)
    """
    if split not in npz_splits(path):
        raise ValueError(
            f"load_data: 'split' must be 'train' or 'all' for {path.name!r}, got {split!r}: the archive has no x_test"
        )
    with open_archive(path) as archive:
        if "x" in archive.files:
            parts = [("x", "y")]
        else:
            halves = ("train", "test") if split == "all" else (split,)
            parts = [(f"x_{half}", f"y_{half}") for half in halves if f"x_{half}" in archive.files]
        images = [to_images(read_member(archive, path, x), arg=f"{path.name}[{x}]") for x, _ in parts]
        labels = [
            to_labels(read_member(archive, path, y), len(part), arg=f"{path.name}[{y}]")
            for (_, y), part in zip(parts, images, strict=True)
            if y in archive.files
        ]
    if len({(part.shape[1:], part.dtype) for part in images}) > 1:
        found = " and ".join(f"{tuple(part.shape[1:])} {part.dtype}" for part in images)
        raise ValueError(f"load_data: x_train and x_test in {path.name!r} must agree in shape, got {found}")
    return ImageData(torch.cat(images), torch.cat(labels) if len(labels) == len(images) else None, source=path.name)


def open_archive(path: Path) -> Any:
    """Open the archive; a damaged one is refused in a sentence."""
    # NumPy takes any other file for a pickle, and advises to load it unsafely.
    if not zipfile.is_zipfile(path) and not _starts_as_npy(path):
        raise ValueError(f"load_data: 'data' must be a readable .npz archive, got {str(path)!r}: not a zip file")
    try:
        archive = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"load_data: 'data' must be a readable .npz archive, got {str(path)!r}: {error}") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError(f"load_data: 'data' must be an .npz archive, got a single array in {str(path)!r}")
    return archive


def _starts_as_npy(path: Path) -> bool:
    """Tell whether the file is a single array under an archive's name."""
    with open(path, "rb") as file:
        return file.read(6) == b"\x93NUMPY"


def read_member(archive: Any, path: Path, key: str) -> NDArray[Any]:
    """Read one array; object arrays and damaged members are refused."""
    try:
        array: NDArray[Any] = archive[key]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"load_data: {key!r} in {path.name!r} cannot be read: {error}") from error
    return array


def _check_keys(path: Path, keys: set[str]) -> None:
    """Refuse an archive without images under the keys we know."""
    if "x" not in keys and "x_train" not in keys:
        found = ", ".join(sorted(keys)) or "none"
        raise ValueError(
            f"load_data: {path.name!r} must hold the keys x (and y), or x_train (and y_train, x_test, "
            f"y_test), got the keys: {found}; save it again with np.savez(path, x=images, y=labels), or embeddings="
        )
