"""What a network wants to be given: a square of pixels, and which mean and deviation they are brought to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from deepclust_ext import _checks as check
from deepclust_ext.data.square import Square

# Of ImageNet's pixels: what most networks were trained with.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The centre of 224 pixels of an image whose shorter side was scaled to 256: the most usual evaluation on ImageNet.
USUAL = Square(224, 256)


@dataclass(frozen=True)
class Preprocessing:
    """From a picture to a network's input.

    Parameters
    ----------
    square : Square
        How it is scaled and cut.
    mean, std : tuple of float
        Of the three channels in [0, 1]: the input is (pixels - mean) / std.

    Examples
    --------
    >>> Preprocessing().batch(torch.zeros(1, 224, 224, 3, dtype=torch.uint8))[0, :, 0, 0]
    tensor([-2.1179, -2.0357, -1.8044])
    """

    square: Square = USUAL
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3:
                raise ValueError(f"Preprocessing: '{name}' must hold three numbers, one a channel, got {values}")
            for value in values:
                check.number("Preprocessing", name, value, **({"above": 0.0} if name == "std" else {}))

    @classmethod
    def of_torchvision(cls, transforms: Any, name: str) -> Preprocessing:
        """Of one of torchvision's presets for classification."""
        sizes = [getattr(transforms, part, None) for part in ("crop_size", "resize_size")]
        if any(not isinstance(size, list) or len(size) != 1 for size in sizes):
            raise ValueError(f"embed: 'backbone' must be a network for classifying images, got {name!r}")
        (size,), (resize,) = (list(map(int, each or ())) for each in sizes)
        square = Square(size, resize, transforms.interpolation.value)
        return cls(square, tuple(transforms.mean), tuple(transforms.std))

    @classmethod
    def of_timm(cls, config: Mapping[str, Any], name: str) -> Preprocessing:
        """Of a data configuration of timm."""
        channels, height, width = config["input_size"]
        mode = config.get("crop_mode") or "center"
        if channels != 3 or height != width or mode not in ("center", "squash"):
            raise ValueError(
                f"embed: 'backbone' must take squares of three channels, whose pictures are cut or squashed, got "
                f"{name!r} with {channels} x {height} x {width} and {mode!r}; give it as module:callable"
            )
        resize = max(height, int(height / config["crop_pct"]))
        square = Square(height, resize, config["interpolation"], mode == "squash")
        return cls(square, tuple(config["mean"]), tuple(config["std"]))

    @classmethod
    def of_mapping(cls, values: Mapping[str, Any], name: str) -> Preprocessing:
        """Of what a module says: `size`, `resize`, `interpolation`, `squash`, `mean`, `std`, or timm's names."""
        if "input_size" in values:
            usual = {"crop_pct": 0.875, "interpolation": "bicubic", "mean": MEAN, "std": STD}
            return cls.of_timm({**usual, **values}, name)
        unknown = set(values) - {"size", "resize", "interpolation", "squash", "mean", "std"}
        if unknown:
            raise ValueError(f"embed: the preprocessing of {name!r} must not have {sorted(unknown)[0]!r}")
        square = {key: values[key] for key in ("size", "resize", "interpolation", "squash") if key in values}
        if "size" in square and "resize" not in square:
            square["resize"] = square["size"]
        return cls(
            replace(USUAL, **square),
            **{key: tuple(float(value) for value in values[key]) for key in ("mean", "std") if key in values},
        )

    def at(self, size: int) -> Preprocessing:
        """The same for squares of another size, with the same share of the picture."""
        share = self.square.short / self.square.size
        return replace(self, square=replace(self.square, size=size, resize=max(size, int(size * share))))

    def batch(self, pixels: Tensor, *, device: torch.device | None = None) -> Tensor:
        """From uint8 (B, H, W, 3) to float32 (B, 3, H, W), channels last, on a device."""
        images = pixels.to(device or pixels.device, non_blocking=True).permute(0, 3, 1, 2).to(torch.float32)
        mean, std = (_channels(values, images) * 255.0 for values in (self.mean, self.std))
        return (images - mean) / std

    def record(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self.square), "mean": list(self.mean), "std": list(self.std)}


def _channels(values: Sequence[float], like: Tensor) -> Tensor:
    """One number a channel, to be broadcast over images."""
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None]
