"""Views of handwriting: moved, bent, and drawn with a thinner or thicker pen."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from deepclust_ext.data.augment import Augmentation
from deepclust_ext.data.geometry import affine_matrix, elastic_offsets, sample, uniform

_CONTROL_POINTS = 4


class StrokeViews(Augmentation):
    r"""Bright strokes on black: one affine and elastic map an image, then a random width of the stroke.

    The width comes from a soft threshold on the blurred image, :math:`clamp((blur(x) - t) / s, 0, 1)` with t drawn
    for each view. How much ink an image holds is the easiest thing to group digits by; with the width random, it
    says nothing. The map samples straight at the output's size, which is smaller than most images: a step then
    costs half.

    Parameters
    ----------
    image_shape : (int, int, int)
        (C, H, W).
    side : int, optional
        Height and width of the views; default 20, or 16 for images below 20 pixels.
    margin : float, optional
        Share of the side added around the image as seen in the plain view; default 0, or 0.2 for images below 20
        pixels, whose figures touch the border.
    degrees : float
        Rotation in [-degrees, degrees].
    scale : (float, float)
        Size of the figure, drawn uniformly in its logarithm.
    stretch : float
        Width over height in [exp(-2 stretch), exp(2 stretch)], at constant area.
    shear : float
        Tangent of the slant, in [-shear, shear].
    shift : float
        Shift in each direction as a share of the side, in [-shift, shift].
    elastic : float
        Standard deviation of a 4 x 4 grid of control points' displacements, in half sides.
    stroke : (float, float)
        Range of the threshold t; low values thicken, high ones thin.
    softness : float
        Width s of the threshold's ramp.

    Raises
    ------
    ValueError
        If a range is empty or a parameter out of its range.
    """

    name = "strokes"

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        *,
        side: int | None = None,
        margin: float | None = None,
        degrees: float = 25.0,
        scale: tuple[float, float] = (0.75, 1.25),
        stretch: float = 0.15,
        shear: float = 0.3,
        shift: float = 0.05,
        elastic: float = 0.04,
        stroke: tuple[float, float] = (0.05, 0.55),
        softness: float = 0.25,
    ) -> None:
        super().__init__(image_shape)
        small = min(self.image_shape[1:]) < 20
        self.side = (16 if small else 20) if side is None else side
        self.margin = (0.2 if small else 0.0) if margin is None else margin
        if self.side < 1:
            raise ValueError(f"{self.name}: 'side' must be at least 1, got {side}")
        self._check_amount("margin", self.margin)
        self._check_amount("degrees", degrees, 180.0)
        self._check_amount("stretch", stretch)
        self._check_amount("shear", shear)
        self._check_amount("shift", shift, 1.0)
        self._check_amount("elastic", elastic)
        self._check_range("scale", scale)
        self._check_range("stroke", stroke, 1.0)
        if not softness > 0:
            raise ValueError(f"{self.name}: 'softness' must be above 0, got {softness}")
        self.degrees, self.scale, self.stretch, self.shear, self.shift = degrees, scale, stretch, shear, shift
        self.elastic, self.stroke, self.softness = elastic, stroke, softness

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """(C, side, side)."""
        return (self.image_shape[0], self.side, self.side)

    def view(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw all parameters, sample once, redraw the stroke."""
        b, (_, h, w) = images.shape[0], self.image_shape
        radians = math.radians(self.degrees)
        smallest, largest = self.scale
        matrix = affine_matrix(
            angle=uniform(b, -radians, radians, generator),
            scale=uniform(b, math.log(smallest), math.log(largest), generator).exp() / (1.0 + self.margin),
            stretch=uniform(b, -2.0 * self.stretch, 2.0 * self.stretch, generator).exp(),
            shear=uniform(b, -self.shear, self.shear, generator),
            shift_x=uniform(b, -self.shift, self.shift, generator),
            shift_y=uniform(b, -self.shift, self.shift, generator),
            aspect=w / h,
        )
        threshold = uniform(b, *self.stroke, generator)
        points = (b, 2, _CONTROL_POINTS, _CONTROL_POINTS)
        moves = torch.randn(points, generator=generator, device=generator.device) * self.elastic
        size = (self.side, self.side)
        offsets = elastic_offsets(moves.to(images.device), size) if self.elastic else None
        return self._redraw(sample(images, matrix, size, offsets=offsets), threshold.to(images.device))

    def plain(self, images: Tensor) -> Tensor:
        """Return the unmoved image at the views' size, with the stroke of the middle threshold."""
        self._check(images)
        matrix = torch.eye(2, 3)[None].repeat(images.shape[0], 1, 1) * (1.0 + self.margin)
        middle = torch.full((images.shape[0],), sum(self.stroke) / 2.0, device=images.device)
        return self._redraw(sample(images, matrix, (self.side, self.side)), middle)

    def _redraw(self, views: Tensor, threshold: Tensor) -> Tensor:
        """Blur by 3 x 3, then the soft threshold."""
        blurred = F.avg_pool2d(views, kernel_size=3, stride=1, padding=1)
        return blurred.sub_(threshold.view(-1, 1, 1, 1)).div_(self.softness).clamp_(0.0, 1.0)
