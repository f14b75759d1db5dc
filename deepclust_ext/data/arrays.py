"""Arrays, tensors and data sets in memory: one layout, one dtype, one size."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from deepclust_ext.data.images import ImageData, as_float

# Images resized at a time: bounds the float copy to some hundred MB whatever the data's size.
_CHUNK_PIXELS = 2**25


def to_images(array: Tensor | NDArray[Any], *, arg: str = "data") -> Tensor:
    """Bring an array to (N, C, H, W) uint8 or float32.

    Parameters
    ----------
    array : Tensor or ndarray
        (N, H, W), (N, C, H, W) with C 1 or 3, or (N, H, W, C) where C is the last size and not the second;
        uint8, bool, or floating point in [0, 1].
    arg : str
        What the messages call the array.

    Returns
    -------
    Tensor
        (N, C, H, W), contiguous; uint8 stays uint8, everything else becomes float32.

    Raises
    ------
    TypeError
        If the dtype is an integer other than uint8, or no number at all.
    ValueError
        If the shape fits none of the three layouts.

    Examples
    --------
    >>> to_images(torch.zeros(5, 8, 8, 3)).shape
    torch.Size([5, 3, 8, 8])
    """
    if isinstance(array, np.ndarray):
        if array.dtype.kind not in "buif":
            raise TypeError(f"load_data: '{arg}' must hold uint8 or floating point pixels, got {array.dtype}")
        # torch takes neither foreign byte order nor read-only or negatively strided memory quietly.
        native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
        images = torch.from_numpy(native if native.flags.writeable else native.copy())
    elif array.layout != torch.strided or array.is_meta:
        kind = "a meta tensor" if array.is_meta else f"{array.layout}; convert it with .to_dense()"
        raise TypeError(f"load_data: '{arg}' must be a dense tensor that holds values, got {kind}")
    else:
        images = array.detach().cpu()
    if images.dtype == torch.bool or images.is_floating_point():
        images = images.to(torch.float32)
    elif images.dtype != torch.uint8:
        raise TypeError(
            f"load_data: '{arg}' must be uint8 or floating point in [0, 1], got {images.dtype}; "
            "convert with astype('uint8') if the values are 0 to 255, or divide by their maximum"
        )
    shape = tuple(images.shape)
    if images.dim() == 3:
        images = images[:, None]
    elif images.dim() == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        images = images.permute(0, 3, 1, 2)
    if images.dim() != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
        mend = "reshape rows of pixels to (N, H, W)" if len(shape) == 2 else "C must be 1 or 3"
        raise ValueError(
            f"load_data: '{arg}' must be (N, H, W), (N, C, H, W) or (N, H, W, C), got shape {shape}; {mend}"
        )
    return images.contiguous()


def to_labels(y: Any, n: int, *, arg: str = "y") -> Tensor:
    """Bring labels to (N,) int64; strings are numbered in sorted order.

    Tensors, arrays, lists, and pandas' columns: strings, categories, integers that may be missing where none is.

    Raises
    ------
    ValueError
        If there is not one label an image, one is missing, or one is not a whole number or a string.
    """
    labels = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if labels.shape == (n, 1):
        labels = labels[:, 0]
    if labels.shape != (n,):
        raise ValueError(f"load_data: '{arg}' must hold one label an image, shape ({n},), got shape {labels.shape}")
    if labels.dtype.kind in "OT" or (labels.dtype.kind == "f" and np.isnan(labels).any()):
        labels = _of_one_kind(labels.tolist(), arg)
    if labels.dtype.kind in "US":
        labels = np.unique(labels, return_inverse=True)[1]
    if labels.dtype.kind == "f" and bool(np.all(labels == np.round(labels))):
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "biu":
        raise ValueError(f"load_data: '{arg}' must be whole numbers or strings, got {labels.dtype}")
    return torch.from_numpy(labels.astype(np.int64))


def _of_one_kind(labels: list[Any], arg: str) -> NDArray[Any]:
    """Python objects as an array of strings or of whole numbers."""
    # None, NaN or pandas' NA, of which a comparison with anything has no truth.
    missing = [
        i for i, label in enumerate(labels) if str(label) in ("None", "nan", "<NA>") and not isinstance(label, str)
    ]
    if missing:
        raise ValueError(
            f"load_data: '{arg}' must hold a label for every image, got {labels[missing[0]]} at index {missing[0]} "
            f"({len(missing)} are missing); leave those images out, or pass no labels"
        )
    for kind in (str, (Real, np.bool_)):
        if all(isinstance(label, kind) for label in labels):
            return np.array(labels)
    found = ", ".join(sorted({type(label).__name__ for label in labels}))
    raise ValueError(f"load_data: '{arg}' must be whole numbers or strings, all of one kind, got {found}")


def resize(images: Tensor, size: int) -> Tensor:
    """Scale the shorter side to `size`, keep the centre square.

    Parameters
    ----------
    images : Tensor
        (N, C, H, W), uint8 or float32.
    size : int
        Side of the result.

    Returns
    -------
    Tensor
        (N, C, size, size) of the same dtype; bilinear, with antialiasing where it shrinks.

    Examples
    --------
    >>> resize(torch.zeros(2, 1, 20, 30), 10).shape
    torch.Size([2, 1, 10, 10])
    """
    n, c, h, w = images.shape
    if h == w == size:
        return images
    short = min(h, w)
    height, width = max(size, round(h * size / short)), max(size, round(w * size / short))
    top, left = (height - size) // 2, (width - size) // 2
    result = images.new_empty((n, c, size, size))
    step = max(1, _CHUNK_PIXELS // (c * max(h * w, height * width)))
    for start in range(0, n, step):
        chunk = as_float(images[start : start + step])
        scaled = F.interpolate(chunk, (height, width), mode="bilinear", align_corners=False, antialias=True)
        scaled = scaled[:, :, top : top + size, left : left + size].clamp_(0.0, 1.0)
        if images.dtype == torch.uint8:
            scaled = scaled.mul_(255.0).round_()
        result[start : start + step] = scaled.to(images.dtype)
    return result


def to_channels(images: Tensor, channels: int) -> Tensor:
    """Repeat grey to three channels, or weigh RGB to grey (ITU-R 601: 0.299, 0.587, 0.114)."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1).contiguous()
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device)
    grey = torch.einsum("nchw,c->nhw", as_float(images), weights)[:, None].clamp_(0.0, 1.0)
    return grey.mul_(255.0).round_().to(torch.uint8) if images.dtype == torch.uint8 else grey


def conform(data: ImageData, image_size: int | None, channels: int | None) -> ImageData:
    """Give the data the size and the channels asked for; None leaves them."""
    images = data.images
    if channels is not None:
        images = to_channels(images, channels)
    if image_size is not None:
        images = resize(images, image_size)
    if images is data.images:
        return data
    return ImageData(images, data.labels, data.names, data.skipped, data.source)


def stack(images: Sequence[Tensor]) -> Tensor:
    """Stack (C, H, W) images of one size; grey joins RGB as RGB, and uint8 joins float as float."""
    if len({image.shape[0] for image in images}) > 1:
        images = [to_channels(image[None], 3)[0] for image in images]
    if len({image.dtype for image in images}) > 1:
        images = [as_float(image) for image in images]
    return torch.stack(list(images))
