"""The order in which an epoch visits the images."""

from __future__ import annotations

import torch
from torch import Tensor


class EpochOrder:
    """A fresh permutation every epoch, cut into batches of one size.

    The mutual information of a small batch is biased upwards, so the images that do not fill a last batch
    are left out of the epoch; as every epoch has a permutation of its own, no image is left out for good.
    With fewer images than the batch size there is one batch of all images.

    Parameters
    ----------
    n_images, batch_size : int
        Both at least 1.

    Examples
    --------
    >>> EpochOrder(1000, 220).n_batches, EpochOrder(100, 220).n_batches
    (4, 1)
    """

    def __init__(self, n_images: int, batch_size: int) -> None:
        self.n_images = n_images
        self.batch_size = min(batch_size, n_images)
        self.n_batches = n_images // self.batch_size

    def permutation(self, generator: torch.Generator) -> Tensor:
        """Draw the epoch's batches: int64 (n_batches, batch_size)."""
        order = torch.randperm(self.n_images, generator=generator)
        return order[: self.n_batches * self.batch_size].view(self.n_batches, self.batch_size)
