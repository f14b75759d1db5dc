"""Networks that standardise their images by the channels of those they are trained on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Images summed at a time, and pixels at most: the float64 copies stay at some hundred MB.
_IMAGES, _PIXELS = 4096, 2**25


class StandardisedNet(nn.Module):
    """Holds mean and deviation of each channel; until `standardise` is called they change nothing.

    Parameters
    ----------
    n_channels : int
        Of the images.
    """

    pixel_mean: Tensor
    pixel_deviation: Tensor

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", torch.zeros(n_channels, 1, 1))
        self.register_buffer("pixel_deviation", torch.ones(n_channels, 1, 1))

    @torch.no_grad()
    def standardise(self, images: Tensor) -> None:
        """Take mean and deviation of each channel from images (N, C, H, W), uint8 or in [0, 1]."""
        scale = 1.0 if images.is_floating_point() else 255.0
        sums = torch.zeros(2, images.shape[1], dtype=torch.float64, device=images.device)
        for part in images.split(max(1, min(_IMAGES, _PIXELS // images[0].numel()))):
            pixels = part.double() / scale
            sums += torch.stack([pixels.sum((0, 2, 3)), pixels.square().sum((0, 2, 3))])
        mean, square = sums / (images.numel() // images.shape[1])
        deviation = (square - mean.square()).clamp_min(0).sqrt()
        self.pixel_mean.copy_(mean[:, None, None])
        # A constant channel carries nothing: it becomes 0.
        self.pixel_deviation.copy_(torch.where(deviation > 1e-6, deviation, 1.0)[:, None, None])

    def standardised(self, views: Tensor) -> Tensor:
        """Views (B, C, H, W) in [0, 1] with the training images' mean of 0 and deviation of 1 in each channel."""
        return (views - self.pixel_mean) / self.pixel_deviation
