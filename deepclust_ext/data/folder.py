"""A folder of images, flat or nested: what can be read becomes data, the rest is listed with its reason."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepclust_ext._optional import require
from deepclust_ext.data.decode import decode
from deepclust_ext.data.images import ImageData
from deepclust_ext.data.walk import EXTENSIONS, list_files

# Above this the folder is refused unless image_size is given: pixels are held in memory at once.
MAX_BYTES = 8 * 2**30


def load_folder(path: Path, *, image_size: int | None = None, folder_labels: bool = False) -> ImageData:
    """Read every image below a folder, sorted by relative path.

    Parameters
    ----------
    path : Path
        The folder; see `list_files` for what of it is read.
    image_size : int, optional
        Scale the shorter side to this and keep the centre square. Without it all images must be of one size.
    folder_labels : bool
        Number the first-level sub-folders in sorted order and take the number for the label.

    Returns
    -------
    ImageData
        uint8; one channel when every image is grey, three otherwise. Names are relative paths with forward
        slashes. `skipped` lists files that are no image, damaged, or too large to open safely.

    Raises
    ------
    ValueError
        If sizes differ and `image_size` is None, if there is no image, or if `folder_labels` is set and an
        image lies in no sub-folder.

    Examples
    --------
    >>> load_folder(Path("photos"), image_size=64)  # doctest: +SKIP
    ImageData(photos: 1200 images of 3x64x64 torch.uint8, no labels)
    """
    files, skipped = list_files(path)
    names: list[str] = []
    pictures: list[NDArray[np.uint8]] = []
    for name, result in _read_all(path, files, image_size):
        if isinstance(result, str):
            skipped.append((name, result))
            continue
        if pictures and result.shape[:2] != pictures[0].shape[:2]:
            (h0, w0), (h, w) = pictures[0].shape[:2], result.shape[:2]
            raise ValueError(
                f"load_data: images in {str(path)!r} must be of one size unless image_size is given, got "
                f"{w0}x{h0} ({names[0]}) and {w}x{h} ({name}); pass image_size=64, say, to scale and crop them all"
            )
        if not pictures and result.size * len(files) > MAX_BYTES:
            raise ValueError(
                f"load_data: images in {str(path)!r} must fit into {MAX_BYTES >> 30} GiB, got {len(files)} "
                f"files of {result.shape[1]}x{result.shape[0]}; pass image_size=64, say, to scale them down"
            )
        names.append(name)
        pictures.append(result)
    if not pictures:
        raise ValueError(_nothing_found(path, skipped))
    labels = _labels(path, names) if folder_labels else None
    return ImageData(_stack(pictures), labels, tuple(names), tuple(sorted(skipped)), str(path))


def _read_all(path: Path, files: list[str], image_size: int | None) -> Iterator[tuple[str, NDArray[np.uint8] | str]]:
    """Yield each file's pixels, or the reason why there are none, in order; decoding runs in threads."""
    pil_image = require("PIL.Image")

    def read(name: str) -> NDArray[np.uint8] | str:
        try:
            if (path / name).exists() and not (path / name).is_file():
                return "not a regular file"  # a pipe would be waited for, for ever
            with pil_image.open(path / name) as picture:
                limit = pil_image.MAX_IMAGE_PIXELS
                if limit is not None and picture.width * picture.height > limit:
                    return _bomb(picture.width, picture.height, limit)
                return decode(picture, image_size)
        except (pil_image.DecompressionBombError, pil_image.DecompressionBombWarning) as error:
            return f"too large to open safely: {error}"
        except pil_image.UnidentifiedImageError:
            return "not a readable image"
        except Exception as error:
            # Damaged files raise whatever the decoder trips over (OSError, SyntaxError, struct.error, ...),
            # and one bad file among thousands must not end the run: it is reported with its reason instead.
            return f"{type(error).__name__}: {error}"

    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("error", pil_image.DecompressionBombWarning)
        # Windows of files, so that an early refusal does not wait for the whole folder to be decoded.
        for start in range(0, len(files), 256):
            window = files[start : start + 256]
            yield from zip(window, pool.map(read, window), strict=True)


def _bomb(width: int, height: int, limit: int) -> str:
    """Say why an enormous picture is skipped."""
    return f"too large to open safely: {width}x{height} is more than {limit} pixels"


def _stack(pictures: list[NDArray[np.uint8]]) -> Tensor:
    """Copy the pictures into one (N, C, H, W) tensor; grey ones are repeated where others have colour."""
    channels = 3 if any(picture.ndim == 3 for picture in pictures) else 1
    images = torch.empty((len(pictures), channels, *pictures[0].shape[:2]), dtype=torch.uint8)
    target = images.numpy()
    for i, picture in enumerate(pictures):
        target[i] = picture.transpose(2, 0, 1) if picture.ndim == 3 else picture
    return images


def _labels(path: Path, names: list[str]) -> Tensor:
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


def _nothing_found(path: Path, skipped: list[Any]) -> str:
    """Say that the folder holds no image, and what it holds instead."""
    message = f"load_data: the folder {str(path)!r} must hold images ({', '.join(sorted(EXTENSIONS))}), got none"
    if skipped:
        name, reason = min(skipped)
        message += f"; {len(skipped)} files skipped, the first {name!r}: {reason}"
    return message
