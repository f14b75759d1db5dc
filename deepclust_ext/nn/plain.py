"""Classic networks with one feature: convolutional stages in a row, then fully connected layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from deepclust_ext.nn.trunks import scaled_channels

# AlexNet's stages as (channels, kernel, stride, padding, pools afterwards).
Stage = tuple[int, int, int, int, bool]
_ALEXNET: tuple[Stage, ...] = (
    (64, 11, 4, 2, True),
    (192, 5, 1, 2, True),
    (384, 3, 1, 1, False),
    (256, 3, 1, 1, False),
    (256, 3, 1, 1, True),
)
_ALEXNET_SMALL: tuple[Stage, ...] = (
    (48, 5, 1, 2, True),
    (126, 5, 1, 2, True),
    (192, 3, 1, 1, False),
    (192, 3, 1, 1, False),
    (128, 3, 1, 1, True),
)


class PlainTrunk(nn.Module):
    """Stages in a row and layers on top; the feature is the last layer's output, before its ReLU.

    Parameters
    ----------
    stages : sequence of nn.Module
        conv1, conv2, ...: each a convolution with what follows it.
    top : nn.Module
        Maps the last stage's flattened output to the feature.

    Attributes
    ----------
    probe_layers : tuple of str
        Names of the stages, which linear probes are put on.
    ends_before_relu : bool
        Whoever builds on the feature applies the ReLU that is left out here.
    """

    ends_before_relu = True

    def __init__(self, stages: Sequence[nn.Module], top: nn.Module) -> None:
        super().__init__()
        self.probe_layers = tuple(f"conv{number}" for number in range(1, len(stages) + 1))
        for name, stage in zip(self.probe_layers, stages, strict=True):
            self.add_module(name, stage)
        self.top = top

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the feature [(B, d)] of images (B, C, H, W)."""
        hidden = images
        for name in self.probe_layers:
            hidden = self.get_submodule(name)(hidden)
        return [self.top(hidden.flatten(1))]


def lenet5_trunk(image_shape: tuple[int, int, int], *, width: float = 1.0, batch_norm: bool = True) -> PlainTrunk:
    """Build LeNet-5 with max-pooling, ReLU and batch-norm: convolutions of 6 and 16, layers of 120 and 84.

    Parameters
    ----------
    image_shape : (int, int, int)
        Channels, height and width; made for 28 pixels (32 with the padding), at least 12.
    width : float
        Multiplies 6, 16, 120 and 84.
    batch_norm : bool
        Whether batch-norm follows each convolution.

    Returns
    -------
    PlainTrunk

    Raises
    ------
    ValueError
        If `width` is not positive, or the images are below 12 pixels.

    References
    ----------
    LeCun et al., Gradient-based learning applied to document recognition, 1998; "A Deep Dive into Deep Cluster",
    section 3.3, for the batch-norm.

    Examples
    --------
    >>> import torch
    >>> [feature.shape[1] for feature in lenet5_trunk((1, 28, 28))(torch.zeros(2, 1, 28, 28))]
    [84]
    """
    sides = _sides("lenet5_trunk", image_shape, 12, lambda side: (side // 2 - 4) // 2)
    first, second, hidden, feature = scaled_channels("lenet5_trunk", (6, 16, 120, 84), width)
    stages = [
        stage(image_shape[0], first, (5, 1, 2), batch_norm=batch_norm, pool=nn.MaxPool2d(2)),
        stage(first, second, (5, 1, 0), batch_norm=batch_norm, pool=nn.MaxPool2d(2)),
    ]
    top = nn.Sequential(
        nn.Linear(second * sides[0] * sides[1], hidden), nn.ReLU(inplace=True), nn.Linear(hidden, feature)
    )
    return PlainTrunk(stages, top)


def alexnet_small_trunk(image_shape: tuple[int, int, int], *, width: float = 1.0) -> PlainTrunk:
    """Build the deep dive's small AlexNet for images of about 32 pixels: 48-126-192-192-128 channels, batch-norm.

    The channels are the paper's. It gives no kernels; those here are AlexNet's with a first one of 5 for small images,
    and the layers on top have 1,024 units: ours.

    Parameters
    ----------
    image_shape : (int, int, int)
        Channels, height and width; at least 15 pixels.
    width : float
        Multiplies the channels and the units.

    Returns
    -------
    PlainTrunk

    Raises
    ------
    ValueError
        If `width` is not positive, or the images are below 15 pixels.

    References
    ----------
    "A Deep Dive into Deep Cluster", section 3.3.

    Examples
    --------
    >>> import torch
    >>> [feature.shape[1] for feature in alexnet_small_trunk((2, 32, 32))(torch.zeros(2, 2, 32, 32))]
    [1024]
    """
    return _alexnet("alexnet_small_trunk", image_shape, _ALEXNET_SMALL, units=1024, width=width, least=15)


def alexnet_trunk(image_shape: tuple[int, int, int], *, width: float = 1.0) -> PlainTrunk:
    """Build AlexNet with batch-norm for images of about 224 pixels: 64-192-384-256-256 channels.

    Parameters
    ----------
    image_shape : (int, int, int)
        Channels, height and width; at least 63 pixels.
    width : float
        Multiplies the channels and the 4,096 units of the layers on top.

    Returns
    -------
    PlainTrunk

    Raises
    ------
    ValueError
        If `width` is not positive, or the images are below 63 pixels.

    References
    ----------
    Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014 (the channels); "A Deep Dive into
    Deep Cluster", appendix A.

    Examples
    --------
    >>> import torch
    >>> trunk = alexnet_trunk((2, 63, 63), width=0.1)
    >>> [feature.shape[1] for feature in trunk(torch.zeros(2, 2, 63, 63))]
    [410]
    """
    return _alexnet("alexnet_trunk", image_shape, _ALEXNET, units=4096, width=width, least=63)


def _alexnet(
    function: str, image_shape: tuple[int, int, int], plan: Sequence[Stage], *, units: int, width: float, least: int
) -> PlainTrunk:
    """Five convolutions and two layers; dropout between the layers, as AlexNet has it."""

    def side_after(side: int) -> int:
        for _, kernel, stride, padding, pools in plan:
            side = (side + 2 * padding - kernel) // stride + 1
            side = (side - 3) // 2 + 1 if pools else side
        return side

    sides = _sides(function, image_shape, least, side_after)
    channels = scaled_channels(function, [stage[0] for stage in plan], width)
    (units,) = scaled_channels(function, (units,), width)
    inputs = [image_shape[0], *channels]
    stages = [
        stage(before, after, (kernel, stride, padding), batch_norm=True, pool=nn.MaxPool2d(3, 2) if pools else None)
        for before, after, (_, kernel, stride, padding, pools) in zip(inputs, channels, plan, strict=False)
    ]
    top = nn.Sequential(
        nn.Dropout(0.5),
        nn.Linear(channels[-1] * sides[0] * sides[1], units),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(units, units),
    )
    return PlainTrunk(stages, top)


def stage(
    before: int, after: int, geometry: tuple[int, int, int], *, batch_norm: bool, pool: nn.Module | None
) -> nn.Sequential:
    """A convolution, batch-norm, pooling, ReLU: the maximum and the ReLU commute, and the ReLU sees fewer pixels."""
    kernel, stride, padding = geometry
    parts: list[nn.Module] = [nn.Conv2d(before, after, kernel, stride=stride, padding=padding, bias=not batch_norm)]
    if batch_norm:
        parts.append(nn.BatchNorm2d(after))
    if pool is not None:
        parts.append(pool)
    return nn.Sequential(*parts, nn.ReLU(inplace=True))


def _sides(
    function: str, image_shape: tuple[int, int, int], least: int, after: Callable[[int], int]
) -> tuple[int, int]:
    """Height and width after the convolutions, or a refusal of images that are too small."""
    if min(image_shape[1:]) < least:
        raise ValueError(
            f"{function}: 'image_shape' must have sides of at least {least} pixels, got {tuple(image_shape)}; "
            "scale the images, or use a smaller network"
        )
    return after(image_shape[1]), after(image_shape[2])
