"""Data sets in torch's sense: read item by item, once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from deepclust_ext.data.arrays import resize, stack, to_images
from deepclust_ext.data.decode import decode
from deepclust_ext.data.images import ImageData


def is_dataset(data: Any) -> bool:
    """Tell whether `data` has a length and items by number: a map-style data set, or a list of images."""
    if isinstance(data, (IterableDataset, dict, tuple, bytes)):
        return False
    return hasattr(data, "__len__") and hasattr(data, "__getitem__")


def load_dataset(dataset: Any, *, image_size: int | None = None) -> ImageData:
    """Read every item of a map-style data set.

    Items are read once and kept: a random transform inside the data set would be frozen, so put it into the
    augmentation instead.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset or list
        Items are images or (image, label, ...): PIL images, or arrays and tensors (H, W), (C, H, W) or (H, W,
        C), uint8 or floating point in [0, 1].
    image_size : int, optional
        Scale the shorter side to this and keep the centre square. Without it all images must be of one size.

    Returns
    -------
    ImageData
        With labels if every item's second entry is a whole number.

    Raises
    ------
    TypeError
        If an item is no image.
    ValueError
        If sizes differ and `image_size` is None, or there is no item.

    Examples
    --------
    >>> load_dataset([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])
    ImageData(list: 2 images of 1x8x8 torch.float32, no labels)
    """
    images: list[Tensor] = []
    labels: list[int | None] = []
    for i in range(len(dataset)):
        item = dataset[i]
        label = None
        if isinstance(item, (tuple, list)) and item:
            label = _whole_number(item[1]) if len(item) > 1 else None
            item = item[0]
        image = _to_image(item, i, image_size)
        if images and image.shape[1:] != images[0].shape[1:]:
            first, this = tuple(images[0].shape[1:]), tuple(image.shape[1:])
            raise ValueError(
                "load_data: items of 'data' must be of one size unless image_size is given, "
                f"got {first} (item 0) and {this} (item {i}); pass image_size=64, say, to scale and crop "
                "them all"
            )
        images.append(image)
        labels.append(label)
    if not images:
        raise ValueError(f"load_data: 'data' must hold at least one image, got an empty {type(dataset).__name__}")
    numbers = [label for label in labels if label is not None]
    return ImageData(
        stack(images),
        torch.tensor(numbers, dtype=torch.int64) if len(numbers) == len(images) else None,
        source=type(dataset).__name__,
    )


def _to_image(item: Any, i: int, image_size: int | None) -> Tensor:
    """Turn one item into (C, H, W)."""
    if isinstance(item, (np.ndarray, Tensor)):
        if item.ndim not in (2, 3):
            raise ValueError(
                f"load_data: item {i} of 'data' must be (H, W), (C, H, W) or (H, W, C), got shape {tuple(item.shape)}"
            )
        image = to_images(item[None], arg=f"item {i} of data")
        return (resize(image, image_size) if image_size is not None else image)[0]
    # Duck-typed, so that arrays need no Pillow.
    if hasattr(item, "convert") and hasattr(item, "mode"):
        pixels = torch.from_numpy(decode(item, image_size).pixels.copy())
        return pixels[None] if pixels.dim() == 2 else pixels.permute(2, 0, 1).contiguous()
    raise TypeError(
        f"load_data: item {i} of 'data' must be a PIL image, an array, a tensor, or a pair of one and a "
        "label, "
        f"got {type(item).__name__}"
    )


def _whole_number(label: Any) -> int | None:
    """Return the label if it is a whole number, None for anything else a data set may put beside an image."""
    if isinstance(label, (int, np.integer)):
        return int(label)
    if isinstance(label, (Tensor, np.ndarray)) and label.ndim == 0 and "int" in str(label.dtype):
        return int(label)
    return None
