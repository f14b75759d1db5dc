"""Small trunks for 28x28 and 8x8 images, of the same shape as the ResNet's, for minutes on a CPU."""

from __future__ import annotations

from deepclust_ext.nn.trunks import BranchedTrunk, conv_norm_relu, early_heads, initialise, scaled_channels


def small28_trunk(
    image_shape: tuple[int, int, int], *, width: float = 1.0, n_heads: int = 4, n_early: int | None = None
) -> BranchedTrunk:
    """Build a small trunk for images of about 28x28: two shared blocks, and last blocks in parallel.

    Parameters
    ----------
    image_shape : (int, int, int)
        Channels, height and width; made for 20 to 32 pixels, any size works, in
        grey or colour.
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
    # A CPU pays for pixels: every layer halves the side (28, 14, 7, 4, 2), so a layer costs about as much
    # arithmetic as the one before, and the last one's receptive field (33 pixels) still covers the image.
    stem = conv_norm_relu(image_shape[0], channels[0], kernel_size=5, stride=2)
    shared = [
        conv_norm_relu(channels[0], channels[1], stride=2),
        conv_norm_relu(channels[1], channels[2], stride=2),
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
    stem = conv_norm_relu(image_shape[0], channels[0])
    shared = [
        conv_norm_relu(channels[0], channels[1], stride=2),
        conv_norm_relu(channels[1], channels[2]),
    ]
    parallel = [conv_norm_relu(channels[2], channels[3], stride=2) for _ in range(n_heads - n_early)]
    trunk = BranchedTrunk(stem, shared, parallel, n_early)
    initialise(trunk)
    return trunk
