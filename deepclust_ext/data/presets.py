"""Augmentations by name, with parameters that a configuration can set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deepclust_ext.data.augment import Augmentation, Identity
from deepclust_ext.data.custom import TransformViews
from deepclust_ext.data.flips import FlipViews
from deepclust_ext.data.policy import PolicyViews
from deepclust_ext.data.rows import make_row_views
from deepclust_ext.data.strokes import StrokeViews
from deepclust_ext.data.views import FigureViews, PhotoViews

# Each preset is a family of views and what it changes of the family's defaults.
_PRESETS: dict[str, tuple[type[Augmentation], dict[str, Any]]] = {
    "digits": (StrokeViews, {}),
    "figures": (FigureViews, {}),
    # A turntable object fills the frame: a window would cut it, a mirror image may be another object.
    "objects": (
        FigureViews,
        {
            "crop": (1.0, 1.0),
            "scale": (0.9, 1.1),
            "stretch": 0.1,
            "shear": 0.1,
            "contrast": 0.3,
            "padding": "border",
        },
    ),
    "natural32": (PhotoViews, {}),
    # Large images keep their detail in smaller windows.
    "natural96": (PhotoViews, {"area": (0.08, 1.0)}),
    "fast-autoaugment": (PolicyViews, {}),
    "flip": (FlipViews, {}),
    "none": (Identity, {}),
}
PRESET_NAMES = tuple(_PRESETS)


def make_augmentation(spec: str | Callable[..., Any], *, image_shape: Any, **parameters: Any) -> Augmentation:
    """Build an augmentation.

    Parameters
    ----------
    spec : str or callable
        - "digits": for strokes on black: rotation, scale, stretch, slant, shift, elastic, width of the stroke.
        - "figures": rotation, scale, stretch, slant, shift, a window, brightness; no flip.
        - "objects": the same, weaker and without the window, for objects that fill the frame.
        - "natural32", "natural96": window, flip, colour jitter, greyscale, for small and larger photographs.
        - "fast-autoaugment": the published policies, greyscale, random square crop; output is the crop's
        size.
        - "flip": the images, half of them mirrored left to right.
        - "none": the images.
        - "auto": "figures" for grey images, "natural32" or "natural96" (from a side of 48) for RGB.
        - a callable on one (C, H, W) float32 image, such as a torchvision.transforms.v2 pipeline.
        - an `Augmentation`, which is returned as it is.
    image_shape : (int, int, int) or (int,)
        (C, H, W) of the images; (d,) of embeddings, whose views are "neighbours", "dropout" or "none".
    **parameters
        Replace the preset's own: see `StrokeViews`, `FigureViews`, `PhotoViews`, `PolicyViews`, `FlipViews`,
        `RowViews`, `NeighbourViews`.

    Returns
    -------
    Augmentation
        Draws views with ``augmentation(images, generator=generator)``.

    Raises
    ------
    TypeError
        If `spec` is neither a name nor callable, or a parameter is unknown to the preset.
    ValueError
        If the name is unknown or a parameter is out of its range.

    Examples
    --------
    >>> import torch
    >>> augmentation = make_augmentation("digits", image_shape=(1, 28, 28), degrees=10.0)
    >>> generator = torch.Generator().manual_seed(0)
    >>> augmentation(torch.zeros(5, 1, 28, 28), generator=generator).shape
    torch.Size([5, 1, 20, 20])
    """
    if len(image_shape) == 1:
        return make_row_views(spec, image_shape=image_shape, **parameters)
    if isinstance(spec, str):
        name = _auto(image_shape) if spec == "auto" else spec
        if name not in _PRESETS:
            raise ValueError(
                f"make_augmentation: 'spec' must be one of {', '.join(PRESET_NAMES)}, auto, or a callable, got {spec!r}"
            )
        family, defaults = _PRESETS[name]
        try:
            augmentation = family(image_shape, **{**defaults, **parameters})
        except TypeError as error:
            raise TypeError(f"make_augmentation: {name!r} does not take these parameters: {error}") from error
        augmentation.name = name
        return augmentation
    if parameters:
        raise TypeError(
            f"make_augmentation: parameters must be left out unless 'spec' is a name, got {', '.join(parameters)}"
        )
    if isinstance(spec, Augmentation):
        if spec.image_shape != tuple(image_shape):
            raise ValueError(f"make_augmentation: 'spec' must be made for images of {tuple(image_shape)}, got {spec!r}")
        return spec
    if not callable(spec):
        raise TypeError(f"make_augmentation: 'spec' must be a name or a callable, got {type(spec).__name__}")
    return TransformViews(spec, image_shape)


def _auto(image_shape: tuple[int, ...]) -> str:
    """Choose by what the images look like from outside."""
    channels, height, width = image_shape
    if channels == 1:
        return "figures"
    return "natural32" if min(height, width) < 48 else "natural96"
