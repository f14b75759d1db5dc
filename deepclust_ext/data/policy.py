"""Fast AutoAugment's published policies, drawn for each image and applied operation by operation."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import resources

import torch
from torch import Tensor

from deepclust_ext.data import policy_ops as ops
from deepclust_ext.data.augment import Augmentation
from deepclust_ext.data.images import as_float

# Operation, the range a level in [0, 1] maps to, and whether the value's sign is drawn.
OPERATIONS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], float, float, bool]] = {
    "ShearX": (ops.shear_x, -0.3, 0.3, True),
    "ShearY": (ops.shear_y, -0.3, 0.3, True),
    "TranslateX": (ops.translate_x, -0.45, 0.45, True),
    "TranslateY": (ops.translate_y, -0.45, 0.45, True),
    "Rotate": (ops.rotate, -30.0, 30.0, True),
    "AutoContrast": (ops.autocontrast, 0.0, 1.0, False),
    "Invert": (ops.invert, 0.0, 1.0, False),
    "Equalize": (ops.equalize, 0.0, 1.0, False),
    "Solarize": (ops.solarize, 0.0, 256.0, False),
    "Posterize": (ops.posterize, 4.0, 8.0, False),
    "Contrast": (ops.contrast, 0.1, 1.9, False),
    "Color": (ops.color, 0.1, 1.9, False),
    "Brightness": (ops.brightness, 0.1, 1.9, False),
    "Sharpness": (ops.sharpness, 0.1, 1.9, False),
    # Needs a place besides its value, so `apply_operation` calls it by itself.
    "Cutout": (ops.invert, 0.0, 0.2, False),
}
_NAMES = tuple(OPERATIONS)
_CUTOUT = _NAMES.index("Cutout")

SubPolicy = Sequence[tuple[str, float, float]]


def apply_operation(name: str, images: Tensor, value: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Apply one operation to every image.

    Parameters
    ----------
    name : str
        One of `OPERATIONS`.
    images : Tensor
        (B, C, H, W) uint8.
    value : Tensor
        (B,) float32 in the operation's own unit.
    x, y : Tensor
        (B,) float32 in [0, 1]: the centre of a cut-out; other operations ignore it.

    Returns
    -------
    Tensor
        (B, C, H, W) uint8.
    """
    if name == "Cutout":
        return ops.cutout(images, value, x, y)
    return OPERATIONS[name][0](images, value)


class PolicyViews(Augmentation):
    """One sub-policy an image, then greyscale and a random square crop, as DHOG trains.

    Each image draws one sub-policy and applies its two operations in order, each with its probability.

    Parameters
    ----------
    image_shape : (int, int, int)
        (C, H, W).
    crop : int, optional
        Side of the crop, which is also the output's: by default 20 for images of 32 (64 for 96), and 5/8 of
        the shorter side otherwise.
    grayscale : float
        Probability of greyscale.
    policies : sequence, optional
        Sub-policies, each of operations (name, probability, level in [0, 1]), all of one length; by default
        the 493 published for CIFAR-10.

    References
    ----------
    Lim, Kim, Kim, Kim and Kim, "Fast AutoAugment", NeurIPS 2019. Darlow and Storkey, "DHOG: Deep Hierarchical
    Object Grouping", 2020, section 4.
    """

    name = "fast-autoaugment"

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        crop: int | None = None,
        grayscale: float = 0.5,
        policies: Sequence[SubPolicy] | None = None,
    ) -> None:
        super().__init__(image_shape)
        short = min(self.image_shape[1:])
        self.crop = {32: 20, 96: 64}.get(short, max(1, round(short * 0.625))) if crop is None else int(crop)
        if not 1 <= self.crop <= short:
            raise ValueError(f"{self.name}: 'crop' must be in 1..{short}, the shorter side, got {crop}")
        if not 0.0 <= grayscale <= 1.0:
            raise ValueError(f"{self.name}: 'grayscale' must be a probability in [0, 1], got {grayscale}")
        self.grayscale = grayscale
        self._operation, self._probability, self._level = _compile(
            published_policies() if policies is None else policies
        )

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """(C, crop, crop)."""
        return self.image_shape[0], self.crop, self.crop

    def view(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw everything first, so that the generator advances by the same amount whatever is drawn."""
        b, (_, h, w), device = images.shape[0], self.image_shape, generator.device
        steps = self._operation.shape[1]
        policy = torch.randint(len(self._operation), (b,), generator=generator, device=device).cpu()
        chance, sign, x, y = torch.rand(4, b, steps, generator=generator, device=device).cpu()
        top = torch.randint(h - self.crop + 1, (b,), generator=generator, device=device)
        left = torch.randint(w - self.crop + 1, (b,), generator=generator, device=device)
        grey = torch.rand(b, generator=generator, device=device) < self.grayscale

        # A copy of its own: the operations below write into it.
        pixels = _to_bytes(images)
        value = self._level[policy] * torch.where(sign < 0.5, -1.0, 1.0).where(self._signed(policy), 1.0)
        for step in range(steps):
            drawn = self._operation[policy, step].where(chance[:, step] < self._probability[policy, step], -1)
            for number, name in enumerate(_NAMES):
                rows = (drawn == number).nonzero().flatten()
                if rows.numel():
                    target = rows.to(pixels.device)
                    arguments = (t[rows, step].to(pixels.device) for t in (value, x, y))
                    pixels[target] = apply_operation(name, pixels[target], *arguments)
        pixels = _crop(pixels, top.to(pixels.device), left.to(pixels.device), self.crop)
        if self.image_shape[0] == 3:
            grey = grey.to(pixels.device)
            pixels = torch.where(grey.view(-1, 1, 1, 1), ops.grey(pixels), pixels)
        return as_float(pixels)

    def plain(self, images: Tensor) -> Tensor:
        """Return the centre crop."""
        self._check(images)
        _, h, w = self.image_shape
        top, left = (h - self.crop) // 2, (w - self.crop) // 2
        return as_float(images[:, :, top : top + self.crop, left : left + self.crop]).contiguous()

    def _signed(self, policy: Tensor) -> Tensor:
        """Tell which of the drawn operations (B, steps) draw a sign."""
        return torch.tensor([entry[3] for entry in OPERATIONS.values()])[self._operation[policy]]


@lru_cache(maxsize=1)
def published_policies() -> tuple[SubPolicy, ...]:
    """Return the 493 sub-policies found on reduced CIFAR-10 (Lim et al., 2019)."""
    source = resources.files("deepclust_ext.data") / "policies" / "fast_autoaugment_cifar10.json"
    return tuple(
        tuple((name, probability, level) for name, probability, level in policy)
        for policy in json.loads(source.read_text())
    )


def _compile(policies: Sequence[SubPolicy]) -> tuple[Tensor, Tensor, Tensor]:
    """Turn sub-policies into tensors (P, steps): operation number, probability, value in its own unit."""
    if not policies or len({len(policy) for policy in policies}) != 1:
        raise ValueError("fast-autoaugment: 'policies' must hold sub-policies, all with one number of operations")
    numbers, probabilities, values = [], [], []
    for policy in policies:
        for name, probability, level in policy:
            if name not in OPERATIONS or not 0.0 <= probability <= 1.0 or not 0.0 <= level <= 1.0:
                raise ValueError(
                    "fast-autoaugment: 'policies' must hold (name, probability, level) with both numbers "
                    "in [0, 1] "
                    f"and a name of {', '.join(OPERATIONS)}; got ({name!r}, {probability}, {level})"
                )
            _, low, high, _ = OPERATIONS[name]
            numbers.append(_NAMES.index(name))
            probabilities.append(probability)
            values.append(low + level * (high - low))
    shape = (len(policies), len(policies[0]))
    return (
        torch.tensor(numbers).view(shape),
        torch.tensor(probabilities).view(shape),
        torch.tensor(values).view(shape),
    )


def _to_bytes(images: Tensor) -> Tensor:
    """Return a contiguous uint8 copy."""
    if images.dtype == torch.uint8:
        return images.clone(memory_format=torch.contiguous_format)
    return as_float(images).mul(255.0).round_().to(torch.uint8).contiguous()


def _crop(images: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    """Cut a square of its own from each image."""
    b, c, h, w = images.shape
    steps = torch.arange(size, device=images.device)
    index = (top[:, None] + steps)[:, :, None] * w + (left[:, None] + steps)[:, None, :]
    index = index.view(b, 1, size * size).expand(b, c, size * size)
    return images.view(b, c, h * w).gather(2, index).view(b, c, size, size)
