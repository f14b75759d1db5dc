"""Networks that map images to a list of features, simple to complex, as DHOG's Figure 1 draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from deepclust_ext import _checks as check
from deepclust_ext._optional import require

RESNET_CHANNELS = (64, 128, 256, 512)
LARGE_IMAGE_SIDE = 48


class BranchedTrunk(nn.Module):
    r"""A stem, shared blocks in a row, and parallel last blocks side by side; each block can be a feature.

    With shared blocks :math:`b_1 \dots b_s` and last blocks :math:`b_{s+1} \dots b_k`,

    .. math:: h_i = b_i(h_{i-1}) \;(i \le s), \qquad h_i = b_i(h_s) \;(i > s),

    and a feature is the average of :math:`h_i` over its pixels, or all of its pixels where their place matters.
    Shared blocks compute for those after them; last blocks share nothing with one another.

    Parameters
    ----------
    stem : nn.Module
        Maps images (B, C, H, W) to the first block's input.
    shared : sequence of nn.Module
        Blocks applied one after another.
    parallel : sequence of nn.Module
        Blocks applied to the last shared block's output, at least one.
    n_early : int
        How many of the shared blocks, counted from the deepest, are features as well.
    flatten : bool
        Whether a feature is all pixels of its block rather than their average.

    References
    ----------
    DHOG: Deep Hierarchical Object Grouping, section 3 and Figure 1.
    """

    def __init__(
        self,
        stem: nn.Module,
        shared: Sequence[nn.Module],
        parallel: Sequence[nn.Module],
        n_early: int,
        *,
        flatten: bool = False,
    ) -> None:
        super().__init__()
        self.stem = stem
        self.shared = nn.ModuleList(shared)
        self.parallel = nn.ModuleList(parallel)
        self.n_early = n_early
        self.flatten = flatten

    def _feature(self, hidden: Tensor) -> Tensor:
        """Average a block's output (B, C, H, W) over its pixels, or keep them all."""
        return hidden.flatten(1) if self.flatten else hidden.mean(dim=(2, 3))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features [(B, d_1), ..., (B, d_k)] of images (B, C, H, W), simple to complex."""
        hidden = self.stem(images.contiguous(memory_format=torch.channels_last))
        first_early = len(self.shared) - self.n_early
        features: list[Tensor] = []
        for position, block in enumerate(self.shared):
            hidden = block(hidden)
            if position >= first_early:
                features.append(self._feature(hidden))
        features.extend(self._feature(block(hidden)) for block in self.parallel)
        return features

    def map_and_feature(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last shared block's map (B, C', h, w), and the first last block's feature on it (B, d)."""
        hidden = self.stem(images.contiguous(memory_format=torch.channels_last))
        for block in self.shared:
            hidden = block(hidden)
        return hidden, self._feature(self.parallel[0](hidden))


def resnet18_trunk(
    image_shape: tuple[int, int, int], *, width: float = 1.0, n_heads: int = 8, n_early: int | None = None
) -> BranchedTrunk:
    """Build DHOG's ResNet-18: three shared stages, and the last stage repeated once per remaining head.

    Parameters
    ----------
    image_shape : (int, int, int)
        Channels, height and width. Sides below 48 get a 3x3 stem at full resolution (32- and 20-pixel
        images), larger ones ResNet's 7x7 stem and max-pool (96- and 64-pixel images).
    width : float
        Multiplies the channels 64, 128, 256, 512, to no fewer than 16; the paper doubles them for STL-10.
    n_heads : int
        Number of features; the paper has 8.
    n_early : int, optional
        How many of the three shared stages are features too; default min(3, n_heads - 1).

    Returns
    -------
    BranchedTrunk

    Raises
    ------
    ValueError
        If `width`, `n_heads` or `n_early` is out of range.
    ImportError
        If torchvision is not installed.

    References
    ----------
    He et al., Deep Residual Learning for Image Recognition, 2016. DHOG, section 3.3.

    Examples
    --------
    >>> trunk = resnet18_trunk((3, 20, 20), n_heads=8)
    >>> [feature.shape[1] for feature in trunk(torch.zeros(2, 3, 20, 20))]
    [64, 128, 256, 512, 512, 512, 512, 512]
    """
    return _resnet_trunk("resnet18_trunk", image_shape, width, n_heads, n_early, "BasicBlock", (2, 2, 2, 2))


def resnet101_trunk(
    image_shape: tuple[int, int, int], *, width: float = 1.0, n_heads: int = 1, n_early: int | None = None
) -> BranchedTrunk:
    """Build ResNet-101, branched as `resnet18_trunk` is: bottleneck blocks of 4 times the channels at their end.

    Parameters
    ----------
    image_shape, width, n_early
        As of `resnet18_trunk`.
    n_heads : int
        Number of features; one is the plain ResNet-101, of 2,048 dimensions.

    Returns
    -------
    BranchedTrunk

    Raises
    ------
    ValueError
        If `width`, `n_heads` or `n_early` is out of range.
    ImportError
        If torchvision is not installed.

    References
    ----------
    He et al., Deep Residual Learning for Image Recognition, 2016. Super-AND, arXiv 2002.12158, table 3.

    Examples
    --------
    >>> trunk = resnet101_trunk((3, 32, 32), width=0.25)
    >>> [feature.shape[1] for feature in trunk(torch.zeros(2, 3, 32, 32))]
    [512]
    """
    return _resnet_trunk("resnet101_trunk", image_shape, width, n_heads, n_early, "Bottleneck", (3, 4, 23, 3))


def _resnet_trunk(
    function: str,
    image_shape: tuple[int, int, int],
    width: float,
    n_heads: int,
    n_early: int | None,
    block: str,
    depths: Sequence[int],
) -> BranchedTrunk:
    """Three shared stages of torchvision's blocks, and the last stage once per remaining head."""
    # With 8 channels, torch's strided 1x1 convolution writes past its memory in the backward pass (channels-last, two
    # threads, torch 2.14): no block gets fewer than 16.
    channels = [max(16, count) for count in scaled_channels(function, RESNET_CHANNELS, width)]
    n_early = early_heads(function, n_heads, n_early, n_shared=3)
    kind = getattr(require("torchvision.models.resnet"), block)
    inputs = [channels[0], *(count * kind.expansion for count in channels)]

    def stage(position: int) -> nn.Module:
        stride = 1 if position == 0 else 2
        return _resnet_stage(kind, inputs[position], channels[position], stride=stride, depth=depths[position])

    shared = [stage(position) for position in range(3)]
    parallel = [stage(3) for _ in range(n_heads - n_early)]
    trunk = BranchedTrunk(_resnet_stem(image_shape, channels[0]), shared, parallel, n_early)
    initialise(trunk)
    return trunk


def _resnet_stem(image_shape: tuple[int, int, int], channels: int) -> nn.Module:
    """3x3 at full resolution for small images, 7x7 stride 2 and max-pool for large ones."""
    if max(image_shape[1:]) < LARGE_IMAGE_SIDE:
        return conv_norm_relu(image_shape[0], channels, kernel_size=3)
    return nn.Sequential(
        conv_norm_relu(image_shape[0], channels, kernel_size=7, stride=2),
        nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
    )


def _resnet_stage(kind: Any, in_channels: int, channels: int, *, stride: int, depth: int) -> nn.Module:
    """`depth` of torchvision's residual blocks, the first of which changes resolution and channels."""
    out_channels = channels * kind.expansion
    shortcut = None
    if stride != 1 or in_channels != out_channels:
        shortcut = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
            nn.BatchNorm2d(out_channels),
        )
    first = kind(in_channels, channels, stride=stride, downsample=shortcut)
    return nn.Sequential(first, *(kind(out_channels, channels) for _ in range(depth - 1)))


def conv_norm_relu(in_channels: int, channels: int, *, kernel_size: int = 3, stride: int = 1) -> nn.Sequential:
    """Return a convolution with padding for equal size at stride 1, batch-norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel_size, stride=stride, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


def initialise(trunk: nn.Module) -> None:
    """He initialisation of the convolutions, and channels-last weights, which CPU and GPU kernels prefer."""
    for module in trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    trunk.to(memory_format=torch.channels_last)


def scaled_channels(function: str, channels: Sequence[int], width: Any) -> list[int]:
    """Multiply channel counts by `width`, at least one each."""
    factor = check.number(function, "width", width, above=0)
    return [max(1, round(count * factor)) for count in channels]


def early_heads(function: str, n_heads: int, n_early: int | None, *, n_shared: int) -> int:
    """Resolve how many shared blocks are features, leaving one head at least to the last blocks."""
    check.whole_number(function, "n_heads", n_heads, at_least=1)
    if n_early is None:
        return min(n_shared, n_heads - 1)
    if not 0 <= n_early <= min(n_shared, n_heads - 1):
        raise ValueError(
            f"{function}: 'n_early' must be between 0 and {min(n_shared, n_heads - 1)} "
            f"({n_shared} shared blocks, and one of the {n_heads} heads is a last block), got {n_early!r}"
        )
    return n_early
