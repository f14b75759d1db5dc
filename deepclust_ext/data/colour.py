"""Random colour as one affine map of RGB an image, and random erasing.

Brightness, contrast, saturation, hue and greyscale are all affine in a pixel's colour, so a chain of them is
one 3x3 matrix and one offset: a single pass over the pixels, clamped once at the end.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Luma of ITU-R 601, as Pillow and torchvision weigh it.
LUMA = (0.299, 0.587, 0.114)
# RGB to YIQ (FCC NTSC, 1953): luma, and two axes of chroma in whose plane a hue is an angle.
_YIQ = (LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def colour_jitter(images: Tensor, *, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    r"""Change brightness, contrast, saturation and hue, in this order.

    .. math:: x' = c\,b\,(1 w^T + s \cos\theta\,P + s \sin\theta\,Q)\,x + (1 - c)\,b\,m,

    with luma weights w, :math:`P = I - 1 w^T` (chroma), Q the quarter turn of chroma, m the mean luma.
    Factors mean what they mean in torchvision; hue turns chroma at constant luma, where torchvision turns
    HSV. One clamp to [0, 1] stands at the end instead of one after each step.

    Parameters
    ----------
    images : Tensor
        (B, C, H, W) float32 in [0, 1]; for C = 1 saturation and hue have no effect. Overwritten.
    brightness, contrast, saturation : Tensor
        (B,) factors; 1 changes nothing. Saturation 0 is greyscale.
    hue : Tensor
        (B,) turns of chroma; 0 changes nothing, 1 is a full turn.

    Returns
    -------
    Tensor
        (B, C, H, W) float32 in [0, 1].

    Examples
    --------
    >>> one = torch.ones(1)
    >>> colour_jitter(torch.ones(1, 1, 1, 1), brightness=one / 2, contrast=one, saturation=one, hue=one * 0)
    tensor([[[[0.5000]]]])
    """
    b, channels, height, width = images.shape
    device = images.device
    gain = (brightness * contrast).to(device)
    offset = ((1.0 - contrast) * brightness).to(device)
    weights = torch.tensor(LUMA, device=device) if channels == 3 else torch.ones(1, device=device)
    offset = offset * (images.mean(dim=(2, 3)) * weights).sum(dim=1)
    if channels == 1:
        return images.mul_(gain.view(-1, 1, 1, 1)).add_(offset.view(-1, 1, 1, 1)).clamp_(0.0, 1.0)
    matrix = gain[:, None, None] * _chroma_matrix(saturation.to(device), hue.to(device))
    mixed = torch.baddbmm(offset.view(-1, 1, 1), matrix, images.view(b, channels, height * width))
    return mixed.clamp_(0.0, 1.0).view_as(images)


def _chroma_matrix(saturation: Tensor, hue: Tensor) -> Tensor:
    """Return (B, 3, 3): scale and turn chroma, keep luma."""
    to_yiq = torch.tensor(_YIQ, dtype=torch.float64)
    turn = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    quarter = (torch.linalg.inv(to_yiq) @ turn @ to_yiq).to(hue.device, torch.float32)
    grey = to_yiq[:1].expand(3, 3).to(hue.device, torch.float32)
    chroma = torch.eye(3, device=hue.device) - grey
    angle = hue * (2.0 * torch.pi)
    along, across = (saturation * angle.cos())[:, None, None], (saturation * angle.sin())[:, None, None]
    matrix: Tensor = grey + along * chroma + across * quarter
    return matrix


def erase(
    images: Tensor,
    *,
    applied: Tensor,
    width: Tensor,
    height: Tensor,
    x: Tensor,
    y: Tensor,
    value: float = 0.0,
) -> Tensor:
    """Fill one rectangle an image.

    Parameters
    ----------
    images : Tensor
        (B, C, H, W) float32. Overwritten.
    applied : Tensor
        (B,) bool: which images are touched.
    width, height : Tensor
        (B,) sides, as shares of the image's.
    x, y : Tensor
        (B,) place of the rectangle in [0, 1]: 0 is flush with the left or upper border, 1 with the other.
    value : float
        The filling.

    Returns
    -------
    Tensor
        The images.
    """
    rows = _between(images.shape[2], y * (1.0 - height), height, images.device)
    columns = _between(images.shape[3], x * (1.0 - width), width, images.device)
    mask = rows[:, :, None] & columns[:, None, :] & applied.to(images.device)[:, None, None]
    return images.masked_fill_(mask[:, None], value)


def _between(count: int, start: Tensor, length: Tensor, device: torch.device) -> Tensor:
    """Mark the pixels (B, count) whose centres lie in [start, start + length)."""
    start, length = start.to(device)[:, None], length.to(device)[:, None]
    centres = (torch.arange(count, dtype=torch.float32, device=device) + 0.5) / count
    return (centres >= start) & (centres < start + length)
