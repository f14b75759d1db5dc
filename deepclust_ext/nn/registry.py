"""Networks by name, and what any network must return."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from deepclust_ext.nn._modes import evaluation_mode
from deepclust_ext.nn._seeding import seeded_init
from deepclust_ext.nn.jule_trunk import jule_trunk
from deepclust_ext.nn.plain import alexnet_small_trunk, alexnet_trunk, lenet5_trunk
from deepclust_ext.nn.row_trunk import RowTrunk
from deepclust_ext.nn.small import small28_trunk, tiny8_trunk
from deepclust_ext.nn.trunks import resnet18_trunk, resnet101_trunk

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "alexnet": alexnet_trunk,
    "alexnet-small": alexnet_small_trunk,
    "jule": jule_trunk,
    "lenet5": lenet5_trunk,
    "resnet101": resnet101_trunk,
    "resnet18": resnet18_trunk,
    "small28": small28_trunk,
    "small28-strided": functools.partial(small28_trunk, strided=True),
    "tiny8": tiny8_trunk,
}


def build_network(
    network: str | nn.Module,
    *,
    image_shape: tuple[int, ...],
    width: float = 1.0,
    seed: int = 0,
    **options: Any,
) -> nn.Module:
    """Return a network that maps images to a list of features: one of ours by name, or the caller's as it is.

    Parameters
    ----------
    network : str or nn.Module
        "resnet18", "resnet101", "small28", "small28-strided" (faster, a little less accurate), "tiny8", with any number
        of features; "lenet5", "alexnet-small", "alexnet", "jule", with one; or "auto": tiny8 up to 12 pixels, small28
        up to 32, else resnet18. A module is returned untouched after a dry run; it must map (B, C, H, W) to a list of
        features (B, d_i), simple to complex, or to one such tensor.
    image_shape : (int, int, int) or (int,)
        Channels, height and width of the images the network will see; or the width of embeddings, for "rows" (see
        `RowTrunk`), which is the only name for them.
    width : float
        Multiplies every channel count of a named network.
    seed : int
        Draws the initial weights of a named network; the global random state is left as it was.
    **options
        Of the named network's builder: `n_heads` and `n_early`, `batch_norm` of "lenet5", or `dim` of "jule". A network
        with one feature takes `n_heads` of 1.

    Returns
    -------
    nn.Module

    Raises
    ------
    ValueError
        For an unknown name, a bad `image_shape`, or a module whose output is not a list of (B, d).
    TypeError
        If `network` is neither a name nor a module, or options are given with a module.

    Examples
    --------
    >>> trunk = build_network("auto", image_shape=(1, 20, 20), n_heads=4)
    >>> feature_dims(trunk, (1, 20, 20))
    [1200, 384, 384, 384]
    """
    if _of_embeddings(image_shape) and isinstance(network, str):
        return _of_rows(network, image_shape[0], width=width, seed=seed, **options)
    shape: Any = image_shape if _of_embeddings(image_shape) else check_image_shape("build_network", image_shape)
    if isinstance(network, nn.Module):
        given = [*options, *(["width"] if width != 1.0 else [])]
        if given:
            raise TypeError(
                f"build_network: {given} only apply to a named network; build them into your module instead"
            )
        feature_dims(network, shape)
        return network
    if not isinstance(network, str):
        raise TypeError(f"build_network: 'network' must be a name or an nn.Module, got {type(network).__name__}")
    name = _automatic(shape) if network == "auto" else network
    if name not in NETWORKS:
        known = ", ".join(["auto", *NETWORKS])
        raise ValueError(f"build_network: 'network' must be one of {known}, or an nn.Module, got {network!r}")
    build = NETWORKS[name]
    if "n_heads" in options and "n_heads" not in inspect.signature(build).parameters and options.pop("n_heads") != 1:
        raise ValueError(f"build_network: 'n_heads' must be 1 for {name!r}, which has one feature")
    with seeded_init(seed):
        return build(shape, width=width, **options)


def _of_embeddings(image_shape: Any) -> bool:
    """Whether a shape is (d,)."""
    return isinstance(image_shape, tuple) and len(image_shape) == 1


def _of_rows(network: str, dim: int, *, width: float, seed: int, **options: Any) -> nn.Module:
    """The one named network of embeddings."""
    if network != "rows":
        raise ValueError(f"build_network: 'network' must be 'rows' or an nn.Module for embeddings, got {network!r}")
    return RowTrunk(dim, hidden=max(1, round(512 * width)), seed=seed, **options)


def feature_dims(module: nn.Module, image_shape: tuple[int, ...]) -> list[int]:
    """Return the widths [d_1, ..., d_k] of a network's features, by a dry run that leaves no trace.

    Parameters
    ----------
    module : nn.Module
        Maps (B, C, H, W), or embeddings (B, d), to a list of (B, d_i), or to one (B, d).
    image_shape : (int, int, int) or (int,)
        Channels, height and width; or the embeddings' width.

    Returns
    -------
    list of int

    Raises
    ------
    ValueError
        If the module's output is anything else.
    """
    # (d,) is that of embeddings.
    shape: Any = image_shape if _of_embeddings(image_shape) else check_image_shape("feature_dims", image_shape)
    example = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    images = torch.zeros(2, *shape, dtype=example.dtype, device=example.device)
    with evaluation_mode(module), torch.no_grad(), torch.random.fork_rng(devices=[]):
        output = module(images)
    return [feature.shape[1] for feature in as_features(output, n_images=2)]


def as_features(output: object, *, n_images: int) -> list[Tensor]:
    """Read a network's output as a list of features (B, d_i); one tensor counts as a list of one."""
    features = [output] if isinstance(output, Tensor) else output
    if not isinstance(features, (list, tuple)) or not features:
        raise ValueError(
            "network: the output must be a list of features (B, d), or one tensor (B, d), "
            f"got {'an empty ' if features == [] or features == () else ''}{type(output).__name__}"
        )
    for position, feature in enumerate(features):
        if not isinstance(feature, Tensor):
            raise ValueError(f"network: feature {position} must be a tensor (B, d), got {type(feature).__name__}")
        if feature.ndim != 2 or feature.shape[0] != n_images or not feature.is_floating_point():
            raise ValueError(
                f"network: feature {position} must be a floating-point tensor of shape ({n_images}, d), got "
                f"{feature.dtype} of shape {tuple(feature.shape)}; pool or flatten it inside the network"
            )
    return list(features)


def check_image_shape(function: str, image_shape: Any) -> tuple[int, int, int]:
    """Return (C, H, W) as plain ints, or refuse."""
    sides = tuple(image_shape) if isinstance(image_shape, Iterable) else ()
    if len(sides) != 3 or any(not isinstance(side, Integral) or side < 1 for side in sides):
        raise ValueError(
            f"{function}: 'image_shape' must be (channels, height, width), whole numbers of at least 1, got "
            f"{image_shape!r}"
        )
    channels, height, width = sides
    return int(channels), int(height), int(width)


def _automatic(shape: tuple[int, int, int]) -> str:
    """Choose a network by the images' size: the small ones where they suffice."""
    _, height, width = shape
    if max(height, width) <= 12:
        return "tiny8"
    if max(height, width) <= 32:
        return "small28"
    return "resnet18"
