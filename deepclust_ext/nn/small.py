"""Small trunks for 28x28 and 8x8 images, of the same shape as the ResNet's, for minutes on a CPU."""

from __future__ import annotations

from torch import nn

from deepclust_ext.nn.trunks import BranchedTrunk, conv_norm_relu, early_heads, initialise, scaled_channels


def small28_trunk(
    image_shape: tuple[int, int, int], *, width: float = 1.0, n_heads: int = 4, n_early: int | None = None
) -> BranchedTrunk:
    """Build a small trunk for images of about 28x28: two shared blocks, and last blocks in parallel.

    Parameters
    ----------
    image_shape : (int, int, int)
        Channels, height and width; made for 20 to 32 pixels, any size of at least 4 works.
    width : float
        Multiplies the channels 32, 64, 128, 256.
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
    >>> trunk = small28_trunk((1, 28, 28), n_heads=4)
    >>> [feature.shape[1] for feature in trunk(torch.zeros(2, 1, 28, 28))]
    [64, 128, 256, 256]
    """
    channels = scaled_channels("small28_trunk", (32, 64, 128, 256), width)
    n_early = early_heads("small28_trunk", n_heads, n_early, n_shared=2)
    # On a CPU the early layers cost memory traffic, not arithmetic: 5x5 at stride 2 leaves a quarter of the
    # pixels before the first batch-norm.
    stem = conv_norm_relu(image_shape[0], channels[0], kernel_size=5, stride=2)
    shared = [
        conv_norm_relu(channels[0], channels[1], stride=2),
        conv_norm_relu(channels[1], channels[2]),
    ]
    parallel = [conv_norm_relu(channels[2], channels[3], stride=2) for _ in range(n_heads - n_early)]
    trunk = BranchedTrunk(stem, shared, parallel, n_early)
    initialise(trunk)
    return trunk


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
    >>> trunk = tiny8_trunk((1, 8, 8), n_heads=2)
    >>> [feature.shape[1] for feature in trunk(torch.zeros(2, 1, 8, 8))]
    [128, 128]
    """
    channels = scaled_channels("tiny8_trunk", (32, 64, 128, 128), width)
    n_early = early_heads("tiny8_trunk", n_heads, n_early, n_shared=2)
    stem: nn.Module = conv_norm_relu(image_shape[0], channels[0])
    shared = [
        conv_norm_relu(channels[0], channels[1], stride=2),
        conv_norm_relu(channels[1], channels[2]),
    ]
    parallel = [conv_norm_relu(channels[2], channels[3], stride=2) for _ in range(n_heads - n_early)]
    trunk = BranchedTrunk(stem, shared, parallel, n_early)
    initialise(trunk)
    return trunk
