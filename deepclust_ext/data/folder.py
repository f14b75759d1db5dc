"""A folder of images, or archives of them: what can be read becomes data, the rest is listed with its reason."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepclust_ext._optional import require
from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.data.cache import PixelCache
from deepclust_ext.data.counter import FileCounter, Show
from deepclust_ext.data.images import ImageData
from deepclust_ext.data.pool import DECODE_BYTES, Budget, in_order
from deepclust_ext.data.reading import Frame, Reading
from deepclust_ext.data.stored import Stored, stored
from deepclust_ext.data.walk import EXTENSIONS

# Above this the folder is refused unless image_size is given: pixels are held in memory at once.
MAX_BYTES = 8 * 2**30
# 16-bit images of which none uses a larger share of its range are said to be dark.
DARK_SHARE = 1 / 16


def load_folder(
    path: Path,
    *,
    reading: Reading | None = None,
    folder_labels: bool = False,
    cache: Path | None = None,
    progress: Show = False,
    without: Collection[str] = (),
) -> ImageData:
    """Read every image below a folder, sorted by relative path, or in tar archives, in their order.

    Parameters
    ----------
    path : Path
        The folder or the archive; see `stored` for what of it is read.
    reading : Reading, optional
        How its files are read. Without an `image_size` all images must be of one size.
    folder_labels : bool
        Number the first-level sub-folders in sorted order and take the number for the label. Without it, archives bring
        labels where every image has a class beside it; see `ShardFiles`.
    cache : Path, optional
        Folder of `PixelCache`, used where images are scaled.
    progress : bool, None or callable
        As `FileCounter` takes it.
    without : collection of str
        Names of files that are left out, as they are known already.

    Returns
    -------
    ImageData
        uint8; one channel when every image is grey, three otherwise. Names are relative paths with forward slashes; in
        a folder of archives they begin with that of the archive. `skipped` lists files that are no image, damaged, or
        too large to open safely.

    Raises
    ------
    ValueError
        If sizes differ and no image size is given, if there is no image, or if `folder_labels` is set and an
        image lies in no sub-folder.

    Warns
    -----
    DeepclustWarning
        If files have frames that are not read, or all 16-bit images are nearly black.

    Examples
    --------
    >>> load_folder(Path("photos"), reading=Reading(image_size=64))  # doctest: +SKIP
    ImageData(photos: 1200 images of 3x64x64 torch.uint8, no labels)
    """
    reading = reading or Reading()
    found = stored(path)
    files, skipped = [name for name in found.files if name not in without], found.skipped
    names: list[str] = []
    pictures: list[NDArray[np.uint8]] = []
    highest: list[int | None] = []
    several: list[str] = []
    kept = None if cache is None or reading.image_size is None else PixelCache(cache, path, reading, found.where)
    for frame in _read_all(found, files, reading, kept, progress):
        if frame.pixels is None:
            skipped.append((frame.name, frame.reason))
            continue
        _check_size(path, frame, frame.pixels, names, pictures, len(files))
        names.append(frame.name)
        pictures.append(frame.pixels)
        highest.append(frame.highest)
        if frame.more:
            several.append(frame.name)
    if not pictures:
        raise ValueError(nothing_found(path, skipped))
    remark(path, reading, several, highest)
    labels = classes_of(path, list(map(found.inner, names))) if folder_labels else found.labels(names)
    return ImageData(_stack(pictures), labels, tuple(names), tuple(sorted(skipped)), str(path))


def _read_all(
    found: Stored, files: list[str], reading: Reading, kept: PixelCache | None, progress: Show
) -> Iterator[Frame]:
    """Yield the frames of each file in order; decoding runs in threads."""
    budget, start = Budget(DECODE_BYTES), time.monotonic()
    decoded = 0

    def read(name: str) -> tuple[list[Frame], bool]:
        known = None if kept is None else kept.find(name)
        if known is not None:
            return known, False
        return found.read(name, reading, budget.reserve), True

    every: dict[str, list[Frame]] = {}
    counter = FileCounter(progress, len(files))
    try:
        with pillow_limit(reading.max_pixels):
            for name, (frames, is_new) in zip(files, in_order(read, files), strict=True):
                counter.step()
                decoded += is_new
                if kept is not None:
                    every[name] = frames
                yield from frames
    finally:
        counter.close()
    if kept is not None and decoded:
        kept.keep(every, time.monotonic() - start)


@contextlib.contextmanager
def pillow_limit(max_pixels: int | None) -> Iterator[None]:
    """Pillow's limit of pixels for the block: it is of the module, and a warning beyond it becomes an error."""
    pil_image: Any = require("PIL.Image")
    before = pil_image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        # About metadata that is damaged, of which nothing is used.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        warnings.simplefilter("error", pil_image.DecompressionBombWarning)
        if max_pixels is not None:
            pil_image.MAX_IMAGE_PIXELS = max_pixels
        try:
            yield
        finally:
            pil_image.MAX_IMAGE_PIXELS = before


def _check_size(
    path: Path,
    frame: Frame,
    pixels: NDArray[np.uint8],
    names: list[str],
    pictures: list[NDArray[np.uint8]],
    n_files: int,
) -> None:
    """Refuse a picture of another size than the first, and a first one that tells that all will be too much."""
    if pictures and pixels.shape[:2] != pictures[0].shape[:2]:
        (h0, w0), (h, w) = pictures[0].shape[:2], pixels.shape[:2]
        raise ValueError(
            f"load_data: images in {str(path)!r} must be of one size unless image_size is given, got "
            f"{w0}x{h0} ({names[0]}) and {w}x{h} ({frame.name}); pass image_size=64, say, to scale and crop them all"
        )
    if not pictures and pixels.size * n_files > MAX_BYTES:
        raise ValueError(
            f"load_data: images in {str(path)!r} must fit into {MAX_BYTES >> 30} GiB, got {n_files} "
            f"files of {pixels.shape[1]}x{pixels.shape[0]}; pass image_size=64, say, to scale them down"
        )


def remark(path: Path, reading: Reading, several: list[str], highest: list[int | None]) -> None:
    """Say what of the files is not in the data, or hardly visible in it."""
    if several:
        files = "1 file has" if len(several) == 1 else f"{len(several)} files have"
        warnings.warn(
            f"load_data: {files} more than one frame, such as {several[0]!r}, and the first is taken; "
            "frames='all' takes each as an image",
            DeepclustWarning,
            stacklevel=4,
        )
    deep = [value for value in highest if value is not None]
    if reading.stretch is None and len(deep) == len(highest) and max(deep) < 65536 * DARK_SHARE:
        white = max(1, 2 ** max(deep).bit_length() - 1)
        warnings.warn(
            f"load_data: the 16-bit images in {str(path)!r} use 0 to {max(deep)} of 0 to 65535 and are nearly black; "
            f"stretch={white} makes {white} white",
            DeepclustWarning,
            stacklevel=4,
        )


def _stack(pictures: list[NDArray[np.uint8]]) -> Tensor:
    """Copy the pictures into one (N, C, H, W) tensor; grey ones are repeated where others have colour."""
    channels = 3 if any(picture.ndim == 3 for picture in pictures) else 1
    images = torch.empty((len(pictures), channels, *pictures[0].shape[:2]), dtype=torch.uint8)
    target = images.numpy()
    for i, picture in enumerate(pictures):
        target[i] = picture.transpose(2, 0, 1) if picture.ndim == 3 else picture
    return images


def classes_of(path: Path, names: list[str]) -> Tensor:
    """Number the first-level sub-folders."""
    loose = [name for name in names if "/" not in name]
    if loose:
        raise ValueError(
            "load_data: 'folder_labels' must be False unless every image lies in a sub-folder, got "
            f"{loose[0]!r} directly in {str(path)!r}"
        )
    classes = [name.split("/", 1)[0] for name in names]
    numbers = {name: number for number, name in enumerate(sorted(set(classes)))}
    return torch.tensor([numbers[name] for name in classes], dtype=torch.int64)


def nothing_found(path: Path, skipped: list[Any]) -> str:
    """Say that the folder holds no image, and what it holds instead."""
    kind, wanted = "folder" if path.is_dir() else "archive", ", ".join(sorted(EXTENSIONS))
    message = f"load_data: the {kind} {str(path)!r} must hold images ({wanted}), got none"
    if skipped:
        name, reason = min(skipped)
        message += f"; {len(skipped)} files skipped, the first {name!r}: {reason}"
    return message
