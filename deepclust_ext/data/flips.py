"""Mirror images and nothing else: the weakest augmentation of photographs."""

from __future__ import annotations

import torch
from torch import Tensor

from deepclust_ext.data.augment import Augmentation
from deepclust_ext.data.images import as_float


class FlipViews(Augmentation):
    """The images, some of them mirrored left to right.

    Parameters
    ----------
    image_shape : (int, int, int)
        (C, H, W).
    flip : float
        Probability of a mirror image.

    Raises
    ------
    ValueError
        If `flip` is outside [0, 1].
    """

    name = "flip"

    def __init__(self, image_shape: tuple[int, int, int], *, flip: float = 0.5) -> None:
        super().__init__(image_shape)
        self._check_amount("flip", flip, 1.0)
        self.flip = flip

    def view(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Mirror an image where its draw says so."""
        views = as_float(images)
        mirrored = torch.rand(len(views), generator=generator, device=generator.device) < self.flip
        return torch.where(mirrored.to(views.device)[:, None, None, None], views.flip(-1), views)
