"""Embeddings as data: rows of features that a network made, in place of the images it made them from."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepclust_ext.data.items import Items

# Rows looked at at a time: those that are mapped from a file are never all in memory.
_ROWS = 4096


@dataclass(frozen=True, eq=False)
class EmbeddingData(Items):
    """Embeddings of one width with their names, and labels if there are any.

    Parameters
    ----------
    embeddings : Tensor
        (N, d), float16, bfloat16, float32 or float64; kept as they are, also where they are mapped from a file.
    labels : Tensor, optional
        (N,) int64, not negative. Used for scores only, never to train or to choose.
    names : tuple of str, optional
        One name an image: its path, or the index in decimal (the default).
    skipped : tuple of (str, str), optional
        (path, reason) for every file that could not be embedded.
    source : str, optional
        Where the embeddings came from, for logs and messages.

    Raises
    ------
    TypeError
        If the embeddings or labels are not tensors of the dtypes above.
    ValueError
        If a shape does not fit, or a value is NaN or infinite.

    Examples
    --------
    >>> data = EmbeddingData(torch.zeros(3, 768, dtype=torch.float16))
    >>> len(data), data.image_shape
    (3, (768,))
    """

    kind: ClassVar[str] = "embeddings"
    field: ClassVar[str] = "embeddings"

    embeddings: Tensor
    labels: Tensor | None = None
    names: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    source: str = "array"

    def __post_init__(self) -> None:
        """Check what every user of the container relies on, so that none needs to check again."""
        _check(self.embeddings)
        self._check_rest()

    def __repr__(self) -> str:
        return self._describe(f"{self.embeddings.shape[1]} dimensions,")

    @property
    def images(self) -> Tensor:
        """The embeddings, under the name that trainers know the values of images by."""
        return self.embeddings


def to_embeddings(array: Tensor | NDArray[Any], *, arg: str = "data") -> Tensor:
    """Take an array (N, d) for embeddings; nothing is copied that need not be.

    Parameters
    ----------
    array : Tensor or ndarray
        (N, d) floating point.
    arg : str
        What the messages call the array.

    Returns
    -------
    Tensor
        (N, d) of the same dtype, on the CPU.

    Raises
    ------
    TypeError
        If the values are no floating-point numbers.
    ValueError
        If the shape is another.

    Examples
    --------
    >>> to_embeddings(np.zeros((2, 3), dtype=np.float16)).dtype
    torch.float16
    """
    if array.ndim != 2:
        raise ValueError(f"load_items: '{arg}' must be embeddings of shape (N, d), got shape {tuple(array.shape)}")
    if isinstance(array, Tensor):
        if array.layout != torch.strided or array.is_meta:
            kind = "a meta tensor" if array.is_meta else f"{array.layout}; convert it with .to_dense()"
            raise TypeError(f"load_items: '{arg}' must be a dense tensor that holds values, got {kind}")
        rows = array.detach().cpu()
    else:
        if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
            raise TypeError(f"load_items: '{arg}' must hold floating-point numbers, got {array.dtype}")
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        if any(stride < 0 or stride % native.itemsize for stride in native.strides):
            native = np.ascontiguousarray(native)
        with warnings.catch_warnings():
            # A file that is mapped for reading alone is a use that we have for it: nothing here writes.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            rows = torch.from_numpy(native)
    if not rows.is_floating_point():
        raise TypeError(
            f"load_items: '{arg}' must hold floating-point numbers, got {rows.dtype}; "
            "convert with astype('float32'), or reshape rows of pixels to (N, H, W)"
        )
    return rows


def _check(rows: Tensor) -> None:
    """Refuse anything but finite (N, d) floating point."""
    if not isinstance(rows, Tensor):
        raise TypeError(f"EmbeddingData: 'embeddings' must be a Tensor, got {type(rows).__name__}; see load_items")
    if rows.dim() != 2 or rows.shape[1] == 0:
        raise ValueError(f"EmbeddingData: 'embeddings' must be (N, d) with d >= 1, got shape {tuple(rows.shape)}")
    if rows.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise TypeError(f"EmbeddingData: 'embeddings' must be floating point, got {rows.dtype}; see load_items")
    bad = torch.cat([(~part.isfinite()).any(dim=1) for part in rows.split(_ROWS)]).nonzero().flatten()
    if bad.numel():
        raise ValueError(
            f"EmbeddingData: 'embeddings' must be finite, got NaN or infinite values in {bad.numel()} of "
            f"{rows.shape[0]} rows, the first at index {int(bad[0])}; leave those rows out"
        )
