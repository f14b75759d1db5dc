"""Small trunks for 28x28 and 8x8 images, branched as the ResNet is, for minutes on a CPU."""

from __future__ import annotations

from torch import nn

from deepclust_ext.nn.trunks import BranchedTrunk, conv_norm_relu, early_heads, initialise, scaled_channels


def small28_trunk(
    image_shape: tuple[int, int, int],
    *,
    width: float = 1.0,
    n_heads: int = 3,
    n_early: int | None = None,
    strided: bool = False,
) -> BranchedTrunk:
    """Build a small trunk for images of 16 to 32 pixels: one shared block, and last blocks in parallel.

    Features keep their pixels: for figures and digits it matters where a stroke lies.

    Parameters
    ----------
    image_shape : (int, int, int)
        Channels, height and width; made for views of 20 pixels, in grey or colour; at least 8.
    width : float
        Multiplies the channels 24, 48, 96.
    n_heads : int
        Number of features.
    n_early : int, optional
        Whether (1 or 0) the shared block is a feature too; default min(1, n_heads - 1).
    strided : bool
        Halve the side by the convolutions' strides, not by pooling after them: a step of training takes 4/7 of the
        time, for half a point of accuracy on digits. As a network's name, "small28-strided".

    Returns
    -------
    BranchedTrunk

    Raises
    ------
    ValueError
        If `width`, `n_heads` or `n_early` is out of range, or the images are below 8 pixels.

    Examples
    --------
    >>> import torch
    >>> trunk = small28_trunk((1, 20, 20), n_heads=3)
    >>> [feature.shape[1] for feature in trunk(torch.zeros(2, 1, 20, 20))]
    [1200, 384, 384]
    """
    channels = scaled_channels("small28_trunk", (24, 48, 96), width)
    n_early = early_heads("small28_trunk", n_heads, n_early, n_shared=1)
    if min(image_shape[1:]) < 8:
        raise ValueError(
            f"small28_trunk: 'image_shape' must have sides of at least 8 pixels, got {tuple(image_shape)}; use tiny8"
        )
    # A CPU pays for pixels: the stem halves the side at once, and every block halves it again (20, 10, 5, 2 or 3).
    stem = conv_norm_relu(image_shape[0], channels[0], kernel_size=5, stride=2)
    shared = [_halving(channels[0], channels[1], strided)]
    parallel = [_halving(channels[1], channels[2], strided) for _ in range(n_heads - n_early)]
    trunk = BranchedTrunk(stem, shared, parallel, n_early, flatten=True)
    initialise(trunk)
    return trunk


def _halving(in_channels: int, channels: int, strided: bool) -> nn.Module:
    """A convolution that halves the side, or one with a pooling that does."""
    if strided:
        return conv_norm_relu(in_channels, channels, stride=2)
    return nn.Sequential(conv_norm_relu(in_channels, channels), nn.MaxPool2d(2))


def tiny8_trunk(
    image_shape: tuple[int, int, int], *, width: float = 1.0, n_heads: int = 4, n_early: int | None = None
) -> BranchedTrunk:
    """Build a tiny trunk for images of about 8x8: two shared blocks, and last blocks in parallel.

    Parameters
    ----------
    image_shape : (int, int, int)
        Channels, height and width; made for 6 to 12 pixels, any size works.
    width : float
        Multiplies the channels 32, 64, 128, 128.
    n_heads : int
        Number of features.
    n_early : int, optional
        How many of the two shared blocks are features too; default min(2, n_heads - 1).

    Returns
    -------
    BranchedTrunk

    Raises
    ------
    ValueError
        If `width`, `n_heads` or `n_early` is out of range.

    Examples
    --------
    >>> import torch
    >>> trunk = tiny8_trunk((1, 8, 8), n_heads=2)
    >>> [feature.shape[1] for feature in trunk(torch.zeros(2, 1, 8, 8))]
    [128, 128]
    """
    channels = scaled_channels("tiny8_trunk", (32, 64, 128, 128), width)
    n_early = early_heads("tiny8_trunk", n_heads, n_early, n_shared=2)
    stem = conv_norm_relu(image_shape[0], channels[0])
    shared = [
        conv_norm_relu(channels[0], channels[1], stride=2),
        conv_norm_relu(channels[1], channels[2]),
    ]
    parallel = [conv_norm_relu(channels[2], channels[3], stride=2) for _ in range(n_heads - n_early)]
    trunk = BranchedTrunk(stem, shared, parallel, n_early)
    initialise(trunk)
    return trunk
