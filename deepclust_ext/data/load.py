"""One door for all data: an array, a data set, a folder, a file or a name become `ImageData` or `EmbeddingData`."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from deepclust_ext.data.array_shards import array_shards, load_array_shards
from deepclust_ext.data.arrays import conform, to_images, to_labels
from deepclust_ext.data.counter import Show
from deepclust_ext.data.dataset import is_dataset, load_dataset
from deepclust_ext.data.embedding_files import load_archive, load_npy, load_parquet
from deepclust_ext.data.embeddings import EmbeddingData, to_embeddings
from deepclust_ext.data.folder import load_folder
from deepclust_ext.data.images import ImageData
from deepclust_ext.data.load_checks import (
    FILES,
    check_arguments,
    describe,
    existing_path,
    is_archive,
    is_folder,
    refuse_test_split,
    too_few,
)
from deepclust_ext.data.named import KNOWN_NAMES, SPLIT_NAMES, load_named
from deepclust_ext.data.npz import archive_keys, load_npz, npz_splits
from deepclust_ext.data.reading import Reading

__all__ = ["KNOWN_NAMES", "has_split", "holds_embeddings", "load_data", "load_items"]


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
        map-style data set of images or (image, label) pairs; the path of a folder (flat or nested), of a tar archive
        of images or a folder of such archives (as webdataset has them, not compressed), of a folder of `.npy` files
        with images, or of an `.npz` file with keys x, y or x_train, y_train, x_test, y_test; or one of `KNOWN_NAMES`.
        A name wins over a folder of that name: write ``./digits`` for the folder.
    split : {"train", "test", "all"}
        Data without a division of its own is all "train" (and all "all").
    image_size : int, optional
        Scale the shorter side to this and keep the centre square. Without it images keep their size, and a
        folder of differing sizes is refused.
    channels : {1, 3}, optional
        Turn the images grey or RGB; by default a folder is grey when every image in it is.
    folder_labels : bool
        Take the names of a folder's, or an archive's, first-level sub-folders for labels. Without it, archives bring
        labels where every image has a class in a `.cls` or `.json` file beside it.
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
    found = load_items(
        data,
        split=split,
        image_size=image_size,
        channels=channels,
        folder_labels=folder_labels,
        y=y,
        min_images=min_images,
        max_pixels=max_pixels,
        frames=frames,
        stretch=stretch,
        cache=cache,
        progress=progress,
    )
    if not isinstance(found, ImageData):
        rows = tuple(found.values.shape)
        mend = "; reshape rows of pixels to (N, H, W)" if isinstance(data, (np.ndarray, Tensor)) else ""
        raise ValueError(f"load_data: 'data' must be images, got embeddings of shape {rows} from {found.source}{mend}")
    return found


def load_items(
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
    without: Collection[str] = (),
) -> ImageData | EmbeddingData:
    """Load images as `load_data` does, or embeddings.

    Parameters
    ----------
    data
        As in `load_data`; or embeddings: an array or tensor (N, d) of floating-point numbers, `EmbeddingData`, or the
        path of an `.npy` file with such an array, of an `.npz` file with the key `embeddings`, and `paths` and `y` if
        it has them, or of a parquet file with a column `embeddings` of lists, or a column for each dimension. Files
        of numbers are mapped, not read, where they can be, and no dtype is changed.
    split, image_size, channels, folder_labels, y, min_images, max_pixels, frames, stretch, cache, progress
        As in `load_data`; `image_size` and `channels` do not apply to embeddings.
    without : collection of str
        Of a folder: paths of files that are left out.

    Returns
    -------
    ImageData or EmbeddingData

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        As in `load_data`.
    ImportError
        If the data are a parquet file and pyarrow is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> load_items(np.zeros((5, 768), dtype=np.float16))
    EmbeddingData(array: 5 embeddings of 768 dimensions, torch.float16, no labels)
    """
    check_arguments(split, image_size, channels)
    reading = Reading(image_size, max_pixels, frames, stretch)
    if folder_labels and not is_folder(data):
        raise ValueError(f"load_data: 'folder_labels' must be False unless 'data' is a folder, got {describe(data)}")
    folder_options = {
        "folder_labels": folder_labels,
        "cache": None if cache is None else Path(cache),
        "progress": progress,
        "without": without,
    }
    loaded = _load(data, split, reading, folder_options)
    if isinstance(loaded, ImageData):
        loaded = conform(loaded, image_size, channels)
    elif image_size is not None:
        raise ValueError(f"load_data: 'image_size' must be left out for embeddings, got {image_size}")
    if y is not None:
        loaded = loaded.with_labels(to_labels(y, len(loaded)))
    if len(loaded) < min_images:
        raise ValueError(too_few(loaded, min_images))
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
    check_arguments(split, None, None)
    if not isinstance(data, (str, os.PathLike)):
        return split != "test"
    name = os.fspath(data)
    if name in KNOWN_NAMES:
        return split != "test" or name in SPLIT_NAMES
    path = existing_path(name)
    if path.suffix == ".npz" and path.is_file() and not holds_embeddings(path):
        return split in npz_splits(path)
    return split != "test"


def holds_embeddings(data: Any) -> bool:
    """Tell whether `load_items` takes the data for embeddings, without reading them; False for what it refuses.

    Examples
    --------
    >>> holds_embeddings("digits"), holds_embeddings(np.zeros((5, 768))), holds_embeddings(np.zeros((5, 8, 8)))
    (False, True, False)
    """
    if isinstance(data, (np.ndarray, Tensor)):
        return data.ndim == 2
    if not isinstance(data, (str, os.PathLike)) or os.fspath(data) in KNOWN_NAMES:
        return isinstance(data, EmbeddingData)
    path = Path(data)
    if path.suffix not in FILES or not path.is_file() or is_archive(path):
        return False
    if path.suffix == ".npz":
        return "embeddings" in archive_keys(path)
    return path.suffix == ".parquet" or isinstance(load_npy(path), EmbeddingData)


def _load(data: Any, split: str, reading: Reading, folder_options: dict[str, Any]) -> ImageData | EmbeddingData:
    """Dispatch on the kind of data."""
    if isinstance(data, (str, os.PathLike)):
        name = os.fspath(data)
        if name in KNOWN_NAMES:
            return load_named(name, split)
        path = existing_path(name)
        if path.is_file() and not is_archive(path):
            return _load_file(path, split)
        refuse_test_split(split, f"the {'archive' if path.is_file() else 'folder'} {name!r}")
        if array_shards(path):
            return load_array_shards(path)
        return load_folder(path, reading=reading, **folder_options)
    refuse_test_split(split, describe(data))
    if isinstance(data, (ImageData, EmbeddingData)):
        return data
    if isinstance(data, (np.ndarray, Tensor)):
        return EmbeddingData(to_embeddings(data)) if data.ndim == 2 else ImageData(to_images(data))
    if is_dataset(data):
        return load_dataset(data, image_size=reading.image_size)
    raise TypeError(
        "load_data: 'data' must be an array, a tensor, a map-style data set, a path or a name, "
        f"got {type(data).__name__}"
    )


def _load_file(path: Path, split: str) -> ImageData | EmbeddingData:
    """Read a file by its suffix."""
    if path.suffix == ".npz" and not holds_embeddings(path):
        return load_npz(path, split)
    refuse_test_split(split, repr(path.name))
    return {".npz": load_archive, ".npy": load_npy, ".parquet": load_parquet}[path.suffix](path)
