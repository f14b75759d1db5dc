"""The nearest centroid in the space of pixels, in the place of a network that is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class NearestCentroid(nn.Module):
    """Images as rows of pixels, and their nearest centroids.

    Parameters
    ----------
    image_shape : (int, int, int)
        Channels, height and width.
    n_clusters : int
        Centroids, none of which is set at first.
    normalise : bool
        Subtract the mean image, then bring every row to length 1.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, image_shape: tuple[int, int, int], n_clusters: int, *, normalise: bool) -> None:
        super().__init__()
        self.dim = image_shape[0] * image_shape[1] * image_shape[2]
        self.normalise = normalise
        self.register_buffer("mean", torch.zeros(image_shape))
        # A centroid that is not set is infinitely far.
        self.centroids = nn.Parameter(torch.full((n_clusters, self.dim), torch.inf), requires_grad=False)
        self.register_buffer("spread", torch.ones(()))

    @torch.no_grad()
    def set_mean(self, images: Tensor) -> None:
        """Take the mean image of images (N, C, H, W), uint8 or in [0, 1]."""
        sums = torch.zeros(self.mean.shape, dtype=torch.float64, device=images.device)
        for part in images.split(4096):
            sums += part.double().sum(0)
        self.mean.copy_(sums / len(images) / (1.0 if images.is_floating_point() else 255.0))

    @torch.no_grad()
    def set_centroids(self, centroids: Tensor, squared_distances: Tensor) -> None:
        """Take centroids (K or fewer, dim), and the squared distances (N,) of images to their own."""
        self.centroids[: len(centroids)] = centroids
        spread = squared_distances.double().mean()
        self.spread.copy_(torch.where(spread > 0, spread, torch.ones_like(spread)))

    def features(self, views: Tensor) -> Tensor:
        """Rows (B, dim) of views (B, C, H, W) in [0, 1]."""
        if not self.normalise:
            return views.flatten(1)
        return nn.functional.normalize((views - self.mean).flatten(1))

    def outputs(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (1, B, K), a softmax of minus the squared distances by their usual size, and rows (B, dim)."""
        rows = self.features(views)
        known = self.centroids.isfinite().all(1)
        distances = torch.cdist(rows, torch.where(known[:, None], self.centroids, 0.0)).square() / self.spread
        return torch.softmax(-distances.masked_fill(~known, torch.inf), 1)[None], rows
