"""The fixed edge filter that several methods put in front of their network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SOBEL_X = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))


class Sobel(nn.Module):
    r"""Grey image gradients by the Sobel filters, in place of colours.

    .. math:: g_x = S * \bar x, \qquad g_y = S^\top * \bar x

    with :math:`\bar x` the mean of the channels, :math:`*` cross-correlation over zero padding of 1, and
    :math:`S` the rows (-1 0 1), (-2 0 2), (-1 0 1): intensity that grows to the right or downwards is
    positive. The filter is constant: no parameter, no entry in the state dict; gradients reach the images.

    References
    ----------
    DeepCluster (Caron et al., 2018), section 3.3; IIC (Ji et al., 2019), section 4.1.

    Examples
    --------
    >>> Sobel()(torch.rand(2, 3, 33, 31)).shape
    torch.Size([2, 2, 33, 31])
    """

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        horizontal = torch.tensor(SOBEL_X)
        kernel = torch.stack([horizontal, horizontal.T]).unsqueeze(1)
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return gradients (B, 2, H, W) of images (B, 1 or 3, H, W)."""
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"Sobel: 'images' must have shape (B, 1, H, W) or (B, 3, H, W), got {tuple(images.shape)}")
        if not images.is_floating_point():
            raise TypeError(f"Sobel: 'images' must be floating-point, got {images.dtype}; divide uint8 by 255")
        grey = images.mean(dim=1, keepdim=True)
        return nn.functional.conv2d(grey, self.kernel.to(images.dtype), padding=1)
