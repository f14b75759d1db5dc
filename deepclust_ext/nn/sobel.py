"""The fixed edge filter that several methods put in front of their network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Sobel(nn.Module):
    r"""Grey image gradients by the Sobel filters, in place of colours.

    .. math:: g_x = S * \bar x, \qquad g_y = S^\top * \bar x

    with :math:`\bar x` the mean of the channels, :math:`*` cross-correlation over zero padding of 1, and
    :math:`S` the rows (-1 0 1), (-2 0 2), (-1 0 1): intensity that grows to the right or downwards is
    positive. The filter is constant: no parameter, no entry in the state dict; gradients reach the images. Sums are
    of float32 (float64 for float64) on every device: a convolution on a GPU would round the images to TF32 first.

    References
    ----------
    DeepCluster (Caron et al., 2018), section 3.3; IIC (Ji et al., 2019), section 4.1.

    Examples
    --------
    >>> Sobel()(torch.rand(2, 3, 33, 31)).shape
    torch.Size([2, 2, 33, 31])
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return gradients (B, 2, H, W) of images (B, 1 or 3, H, W)."""
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"Sobel: 'images' must have shape (B, 1, H, W) or (B, 3, H, W), got {tuple(images.shape)}")
        if not images.is_floating_point():
            raise TypeError(f"Sobel: 'images' must be floating-point, got {images.dtype}; divide uint8 by 255")
        wide = images if images.dtype == torch.float64 else images.float()
        grey = nn.functional.pad(wide.mean(dim=1, keepdim=True), (1, 1, 1, 1))
        horizontal = _smooth(_difference(grey, -1), -2)
        vertical = _smooth(_difference(grey, -2), -1)
        return torch.cat([horizontal, vertical], 1).to(images.dtype)


def _difference(x: Tensor, dim: int) -> Tensor:
    """(-1 0 1) along `dim`."""
    size = x.shape[dim] - 2
    return x.narrow(dim, 2, size) - x.narrow(dim, 0, size)


def _smooth(x: Tensor, dim: int) -> Tensor:
    """(1 2 1) along `dim`."""
    size = x.shape[dim] - 2
    return x.narrow(dim, 0, size) + 2 * x.narrow(dim, 1, size) + x.narrow(dim, 2, size)
