"""JULE's network: convolutions until the map is about 10 x 10, then an embedding."""

from __future__ import annotations

from torch import nn

from deepclust_ext import _checks as check
from deepclust_ext.nn.plain import PlainTrunk, stage
from deepclust_ext.nn.trunks import scaled_channels

KERNEL = 5
# Another convolution while the map is larger than this; it pools where what it leaves is still this large. These two
# numbers give the layers of all nine data sets of the paper.
ENOUGH, POOLED = 11, 9
# The sizes that the paper's flattened maps show to be padded, UMist and YouTube faces: it does not say why.
PADDED = ((112, 92), (55, 55))


def jule_layers(height: int, width: int) -> list[bool]:
    """For each convolution of images of a size, whether it pools; by the smaller side.

    Examples
    --------
    >>> jule_layers(16, 16), jule_layers(28, 28), jule_layers(128, 128)
    ([True], [True, False], [True, True, True, True])
    """
    side, pools = min(height, width), list[bool]()
    while not pools or side > ENOUGH:
        side -= KERNEL - 1
        pools.append(side >= POOLED)
        side = -(-side // 2) if pools[-1] else side
    return pools


def jule_trunk(image_shape: tuple[int, int, int], *, width: float = 1.0, dim: int = 160) -> PlainTrunk:
    """Build JULE's network: convolutions of 5 x 5 with 50 channels and batch-norm, then a linear layer.

    The number of convolutions comes from the images' size, so that the last map is about 10 x 10: see `jule_layers`.
    Weights are drawn from N(0, 0.01), biases are 0.

    Parameters
    ----------
    image_shape : (int, int, int)
        Channels, height and width; at least 5 pixels.
    width : float
        Multiplies the 50 channels.
    dim : int
        Dimensions of the embedding.

    Returns
    -------
    PlainTrunk

    Raises
    ------
    ValueError
        If `width` or `dim` is not positive, or the images are below 5 pixels.

    References
    ----------
    Yang, Parikh and Batra, "Joint Unsupervised Learning of Deep Representations and Image Clusters", CVPR 2016.

    Examples
    --------
    >>> trunk = jule_trunk((1, 28, 28))
    >>> trunk.top.in_features, trunk.top.out_features
    (3200, 160)
    """
    if min(image_shape[1:]) < KERNEL:
        raise ValueError(
            f"jule_trunk: 'image_shape' must have sides of at least {KERNEL} pixels, got {tuple(image_shape)}"
        )
    (channels,) = scaled_channels("jule_trunk", (50,), width)
    dim = check.whole_number("jule_trunk", "dim", dim, at_least=1)
    padding = KERNEL // 2 if tuple(image_shape[1:]) in PADDED else 0
    before, (height, wide), stages = image_shape[0], image_shape[1:], []
    for pools in jule_layers(height, wide):
        pool = nn.MaxPool2d(2, ceil_mode=True) if pools else None
        stages.append(stage(before, channels, (KERNEL, 1, padding), batch_norm=True, pool=pool))
        before = channels
        height, wide = (side + 2 * padding - KERNEL + 1 for side in (height, wide))
        height, wide = (-(-side // 2) for side in (height, wide)) if pools else (height, wide)
    trunk = PlainTrunk(stages, nn.Linear(channels * height * wide, dim))
    for part in trunk.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.normal_(part.weight, 0.0, 0.01)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return trunk
