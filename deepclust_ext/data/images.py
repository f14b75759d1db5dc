"""The one container every data source becomes: images, optional labels, and where each image came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from deepclust_ext.data.items import Items

# Arithmetic in float32 leaves less outside [0, 1], a filter that overshoots or a normalisation more.
ROUNDING = 1e-4


def as_float(images: Tensor) -> Tensor:
    """Return images as float32 in [0, 1].

    Parameters
    ----------
    images : Tensor
        Any shape; uint8 is divided by 255, floating point is taken to be in [0, 1] already.

    Returns
    -------
    Tensor
        float32, same shape; the input itself when it is float32.

    Raises
    ------
    TypeError
        If the dtype is neither uint8 nor floating point.

    Examples
    --------
    >>> as_float(torch.tensor([0, 255], dtype=torch.uint8))
    tensor([0., 1.])
    """
    if images.dtype == torch.uint8:
        # Division, not multiplication by 1/255: 255 must become exactly 1.
        return images.to(torch.float32).div_(255.0)
    if not images.is_floating_point():
        raise TypeError(
            f"as_float: 'images' must be uint8 or floating point, got {images.dtype}; "
            "convert with images.to(torch.uint8) if the values are 0 to 255"
        )
    return images.to(torch.float32)


@dataclass(frozen=True, eq=False)
class ImageData(Items):
    """Images of one size with their names, and labels if there are any.

    Parameters
    ----------
    images : Tensor
        (N, C, H, W), C 1 or 3; uint8, or float32 in [0, 1].
    labels : Tensor, optional
        (N,) int64, not negative. Used for scores only, never to train or to choose.
    names : tuple of str, optional
        One name an image: the path relative to the folder, or the index in decimal (the default).
    skipped : tuple of (str, str), optional
        (path, reason) for every file that was found but could not be used.
    source : str, optional
        Where the images came from, for logs and messages.

    Raises
    ------
    TypeError
        If the images or labels are not tensors of the dtypes above.
    ValueError
        If a shape does not fit, a pixel is NaN or infinite, or a float pixel is outside [0, 1] by more than
        rounding, 1e-4, for which it is clamped.

    Examples
    --------
    >>> data = ImageData(torch.zeros(3, 1, 8, 8, dtype=torch.uint8))
    >>> len(data), data.names
    (3, ('0', '1', '2'))
    """

    images: Tensor
    labels: Tensor | None = None
    names: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    source: str = "array"

    kind: ClassVar[str] = "images"
    field: ClassVar[str] = "images"

    def __post_init__(self) -> None:
        """Check what every user of the container relies on, so that none needs to check again."""
        object.__setattr__(self, "images", _checked(self.images))
        self._check_rest()

    def __repr__(self) -> str:
        return self._describe("x".join(map(str, self.image_shape)))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, c, h, w = self.images.shape
        return c, h, w


def _checked(images: Tensor) -> Tensor:
    """Refuse anything but (N, C, H, W) uint8 or float32 in [0, 1]; a rounding error outside is clamped."""
    if not isinstance(images, Tensor):
        raise TypeError(f"ImageData: 'images' must be a Tensor, got {type(images).__name__}; see load_data")
    if images.dim() != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
        raise ValueError(f"ImageData: 'images' must be (N, C, H, W) with C 1 or 3, got shape {tuple(images.shape)}")
    if images.dtype not in (torch.uint8, torch.float32):
        raise TypeError(f"ImageData: 'images' must be uint8 or float32, got {images.dtype}; see load_data")
    if images.dtype == torch.float32 and images.numel():
        low, high = (float(v) for v in images.aminmax())
        # aminmax passes NaN on, so one look at the two ends is enough for NaN and both infinities.
        if not (abs(low) < float("inf") and abs(high) < float("inf")):
            bad = (~images.isfinite()).flatten(1).any(dim=1).nonzero().flatten()
            raise ValueError(
                f"ImageData: 'images' must be finite, got NaN or infinite pixels in {bad.numel()} of "
                f"{images.shape[0]} images, the first at index {int(bad[0])}; repair or leave them out"
            )
        if low < -ROUNDING or high > 1.0 + ROUNDING:
            raise ValueError(
                f"ImageData: 'images' must be in [0, 1] when floating point, got {low:.9g} to {high:.9g}; "
                "divide by 255 or pass uint8 if the values are 0 to 255, and undo any normalisation"
            )
        if low < 0.0 or high > 1.0:
            return images.clamp(0.0, 1.0)
    return images
