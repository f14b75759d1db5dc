"""Which images an epoch visits, and in which order."""

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

    def batches(self, visits: Tensor) -> Tensor:
        """Cut the images of an epoch (n_images,), in the order of their visits, into (n_batches, batch_size)."""
        return visits[: self.n_batches * self.batch_size].view(self.n_batches, self.batch_size)


def uniform_over_clusters(labels: Tensor, generator: torch.Generator) -> Tensor:
    r"""Draw N images so that every cluster is seen equally often, in random order.

    Each of the C non-empty clusters gives floor(N / C) + 1 images: without replacement where it has that many, with
    replacement where not. The draws are shuffled, and N of them are kept.

    Parameters
    ----------
    labels : Tensor
        (N,) int64 clusters of the images, on the CPU; clusters may be empty.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    visits : Tensor
        (N,) int64 indices of images.

    References
    ----------
    Caron et al., Deep Clustering for Unsupervised Learning of Visual Features, 2018, section 3.3 ("trivial
    parametrization").

    Examples
    --------
    >>> labels = torch.tensor([0] * 98 + [7] * 2)
    >>> torch.bincount(labels[uniform_over_clusters(labels, torch.Generator().manual_seed(0))])[7] >= 49
    tensor(True)
    """
    n = len(labels)
    shuffled = torch.randperm(n, generator=generator)
    # Stable: inside a cluster the members stay in the shuffled order, so a prefix is a draw without replacement.
    members = shuffled[torch.argsort(labels[shuffled], stable=True)]
    sizes = torch.bincount(labels)
    sizes = sizes[sizes > 0]
    firsts = torch.cumsum(sizes, 0) - sizes
    share = n // len(sizes) + 1
    places = torch.arange(share).expand(len(sizes), share)
    drawn = (torch.rand(len(sizes), share, generator=generator, dtype=torch.float64) * sizes[:, None]).long()
    places = torch.where(sizes[:, None] > share, places, drawn)
    visits = members[(firsts[:, None] + places).flatten()]
    return visits[torch.randperm(len(visits), generator=generator)[:n]]
