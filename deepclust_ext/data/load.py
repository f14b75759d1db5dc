"""One door for all data: an array, a data set, a folder, an .npz file or a name become `ImageData`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from deepclust_ext.data.arrays import conform, to_images, to_labels
from deepclust_ext.data.counter import Show
from deepclust_ext.data.dataset import is_dataset, load_dataset
from deepclust_ext.data.folder import load_folder
from deepclust_ext.data.images import ImageData
from deepclust_ext.data.named import KNOWN_NAMES, SPLIT_NAMES, load_named
from deepclust_ext.data.npz import load_npz, npz_splits
from deepclust_ext.data.reading import Reading

_SPLITS = ("train", "test", "all")


__all__ = ["KNOWN_NAMES", "has_split", "load_data"]


def load_data(
    data: Any,
    *,
    split: str = "train",
    image_size: int | None = None,
    channels: int | None = None,
    folder_labels: bool = False,
    y: Any = None,
    min_images: int = 2,
    max_pixels: int | None = None,
    frames: str = "first",
    stretch: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: Show = False,
) -> ImageData:
    """Load images from wherever they are; nothing is ever downloaded.

    Parameters
    ----------
    data : ImageData, ndarray, Tensor, Dataset, str or Path
        An array or tensor (N, H, W), (N, C, H, W) or (N, H, W, C), uint8 or floating point in [0, 1]; a
        map-style data set of images or (image, label) pairs; the path of a folder (flat or nested) or of an
        `.npz` file with keys x, y or x_train, y_train, x_test, y_test; or one of `KNOWN_NAMES`. A name wins
        over a folder of that name: write ``./digits`` for the folder.
    split : {"train", "test", "all"}
        Data without a division of its own is all "train" (and all "all").
    image_size : int, optional
        Scale the shorter side to this and keep the centre square. Without it images keep their size, and a
        folder of differing sizes is refused.
    channels : {1, 3}, optional
        Turn the images grey or RGB; by default a folder is grey when every image in it is.
    folder_labels : bool
        Take the names of a folder's first-level sub-folders for labels.
    y : array-like, optional
        (N,) labels: whole numbers or strings. They replace labels the data brings.
    min_images : int
        Refuse fewer images than this: clustering needs two, prediction one.
    max_pixels : int, optional
        Of a folder: skip images with more pixels than this; by default Pillow's limit, 89 million.
    frames : {"first", "all"}
        Of a folder: take the first frame of TIFF, GIF, PNG and WebP files, or each as an image.
    stretch : int, optional
        Of a folder: the value of 16-bit pixels that becomes white, such as 4095 for cameras of 12 bits.
    cache : str or path, optional
        Of a folder with `image_size`: keep the scaled images in files in this folder, so that the same images are
        not decoded again.
    progress : bool, None or callable
        Of a folder: show how many files are read, by a bar (None: in a terminal only) or in lines for a callable.

    Returns
    -------
    ImageData
        The images, in the folder's sorted order or the array's own.

    Raises
    ------
    FileNotFoundError
        If a named data set is not on this machine; the message says which file to put where.
    TypeError
        If the data or its dtype is of no kind listed above.
    ValueError
        If the name, the keys, a shape, a pixel value or the number of images is wrong.

    Examples
    --------
    >>> import numpy as np
    >>> load_data(np.zeros((5, 28, 28), dtype=np.uint8))
    ImageData(array: 5 images of 1x28x28 torch.uint8, no labels)
    """
    _check_arguments(split, image_size, channels)
    reading = Reading(image_size, max_pixels, frames, stretch)
    if folder_labels and not _is_folder(data):
        raise ValueError(f"load_data: 'folder_labels' must be False unless 'data' is a folder, got {_describe(data)}")
    folder_options = {
        "folder_labels": folder_labels,
        "cache": None if cache is None else Path(cache),
        "progress": progress,
    }
    loaded = _load(data, split, reading, folder_options)
    loaded = conform(loaded, image_size, channels)
    if y is not None:
        labels = to_labels(y, len(loaded))
        loaded = ImageData(loaded.images, labels, loaded.names, loaded.skipped, loaded.source)
    if len(loaded) < min_images:
        raise ValueError(_too_few(loaded, min_images))
    return loaded


def has_split(data: Any, split: str) -> bool:
    """Tell whether `load_data` has this split of the data, without reading the images.

    Parameters
    ----------
    data
        As in `load_data`.
    split : {"train", "test", "all"}
        The split asked about.

    Returns
    -------
    bool
        "train" and "all" exist always; "test" for the named sets that are published with one and for an
        `.npz` file with x_test.

    Raises
    ------
    ValueError
        If `split` is no split, or `data` is a string that names nothing.

    Examples
    --------
    >>> has_split("digits", "test"), has_split("mnist", "test")
    (False, True)
    """
    _check_arguments(split, None, None)
    if not isinstance(data, (str, os.PathLike)):
        return split != "test"
    name = os.fspath(data)
    if name in KNOWN_NAMES:
        return split != "test" or name in SPLIT_NAMES
    path = _existing_path(name)
    return split in npz_splits(path) if path.is_file() else split != "test"


def _load(data: Any, split: str, reading: Reading, folder_options: dict[str, Any]) -> ImageData:
    """Dispatch on the kind of data."""
    if isinstance(data, (str, os.PathLike)):
        name = os.fspath(data)
        if name in KNOWN_NAMES:
            return load_named(name, split)
        path = _existing_path(name)
        if path.is_file():
            return load_npz(path, split)
        _refuse_test_split(split, f"the folder {name!r}")
        return load_folder(path, reading=reading, **folder_options)
    _refuse_test_split(split, _describe(data))
    if isinstance(data, ImageData):
        return data
    if isinstance(data, (np.ndarray, Tensor)):
        return ImageData(to_images(data))
    if is_dataset(data):
        return load_dataset(data, image_size=reading.image_size)
    raise TypeError(
        "load_data: 'data' must be an array, a tensor, a map-style data set, a path or a name, "
        f"got {type(data).__name__}"
    )


def _check_arguments(split: str, image_size: int | None, channels: int | None) -> None:
    """Refuse settings that no data could satisfy."""
    if split not in _SPLITS:
        raise ValueError(f"load_data: 'split' must be one of {', '.join(_SPLITS)}, got {split!r}")
    if image_size is not None and (not isinstance(image_size, int) or isinstance(image_size, bool) or image_size < 1):
        raise ValueError(f"load_data: 'image_size' must be a positive whole number, got {image_size!r}")
    if channels not in (None, 1, 3):
        raise ValueError(f"load_data: 'channels' must be 1, 3 or None, got {channels!r}")


def _existing_path(name: str) -> Path:
    """Return the folder or .npz file called `name`, or say which names are known."""
    if not name:  # Path("") is the working directory
        raise ValueError("load_data: 'data' must be a path or a name, got an empty string")
    path = Path(name)
    if path.is_dir() or (path.is_file() and path.suffix == ".npz"):
        return path
    if path.is_file():
        raise ValueError(f"load_data: 'data' must be a folder or an .npz file, got the file {name!r}")
    raise ValueError(
        f"load_data: 'data' must be a folder, an .npz file or a known name, got {name!r}, and there is no "
        f"such file or folder; known names: {', '.join(KNOWN_NAMES)}"
    )


def _refuse_test_split(split: str, what: str) -> None:
    """Data in one piece has no test split; taking all of it instead would be a silent mistake."""
    if split == "test":
        raise ValueError(
            f"load_data: 'split' must be 'train' or 'all' for data in one piece, got 'test' for {what}; "
            "pass the test images as data of their own"
        )


def _is_folder(data: Any) -> bool:
    """Tell whether the data is a path or a name that could only be a folder."""
    if not isinstance(data, (str, os.PathLike)) or os.fspath(data) in KNOWN_NAMES:
        return False
    return not Path(data).is_file()


def _describe(data: Any) -> str:
    """Name a piece of data in a message."""
    return repr(os.fspath(data)) if isinstance(data, (str, os.PathLike)) else f"an {type(data).__name__}"


def _too_few(data: ImageData, least: int) -> str:
    """Say how many images were found and what became of the rest."""
    found = "no image" if len(data) == 0 else f"only {len(data)} image{'s' if len(data) > 1 else ''}"
    message = f"load_data: 'data' must hold at least {least} images, got {found} in {data.source}"
    if data.skipped:
        path, reason = data.skipped[0]
        message += f" ({len(data.skipped)} files skipped, the first {path!r}: {reason})"
    return message
