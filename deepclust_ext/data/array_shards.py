"""Images in a folder of `.npy` files: arrays one after another, in the order of their names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from deepclust_ext.data.embedding_files import load_npy
from deepclust_ext.data.images import ImageData

_SUFFIX = ".npy"


def array_shards(data: Any) -> list[Path]:
    """The files, if the data are a folder that holds `.npy` files and, but for hidden ones, nothing else."""
    if not isinstance(data, (str, os.PathLike)) or not Path(data).is_dir():
        return []
    found = sorted(path for path in Path(data).iterdir() if not path.name.startswith("."))
    return found if all(path.suffix == _SUFFIX and path.is_file() for path in found) else []


def load_array_shards(path: Path) -> ImageData:
    """Read a folder's arrays of images as one; image i of FILE is called FILE#i.

    Raises
    ------
    ValueError
        If a file cannot be read, holds embeddings, or holds images of another size or dtype than the first.
    """
    parts: list[ImageData] = []
    for file in array_shards(path):
        part = load_npy(file)
        if not isinstance(part, ImageData):
            raise ValueError(
                f"load_data: 'data' must hold images if it is a folder of {_SUFFIX} files, got embeddings of shape "
                f"{tuple(part.values.shape)} in {file.name}; join embeddings into one file, which is mapped"
            )
        if parts and (part.image_shape, part.images.dtype) != (parts[0].image_shape, parts[0].images.dtype):
            raise ValueError(
                f"load_data: 'data' must hold arrays of one shape and dtype, got {_kind(parts[0])} in "
                f"{parts[0].source} and {_kind(part)} in {file.name}"
            )
        parts.append(part)
    names = tuple(f"{part.source}#{i}" for part in parts for i in range(len(part)))
    return ImageData(torch.cat([part.images for part in parts]), names=names, source=path.name)


def _kind(part: ImageData) -> str:
    """In a message."""
    return f"{'x'.join(map(str, part.image_shape))} {str(part.images.dtype).removeprefix('torch.')}"
