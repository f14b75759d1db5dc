"""K-means as a method: of pixels or embeddings, with a run folder like any other."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from deepclust_ext import _checks as check
from deepclust_ext.methods.direct import Direct, Partition
from deepclust_ext.methods.parameters import documented, param, shared
from deepclust_ext.training.sharing import shared_kmeans

# Starts times rows times clusters, where the number of starts is left open.
STARTS_WORTH = 30_000_000
# Bytes: of an item's name; of its name, its results and what writes them, while k-means has nothing; of a column, of
# the blocks that centroids and distances are found in.
NAME, ITEM, BLOCKS = 80, 400, 1 << 20


@documented
@dataclass(eq=False, repr=False)
class KMeans(Direct):
    r"""K-means on embeddings, or on pixels: nothing is trained, and new images go to the nearest centroid.

    .. math:: \min_{c, a} \sum_i \lVert f(x_i) - c_{a_i} \rVert^2

    with f the PCA-whitening or the projection on the sphere that is asked for, or nothing. Of features from a
    pretrained network, this is what a method that trains must beat.

    Parameters
    ----------
    {parameters}

    References
    ----------
    Lloyd, "Least squares quantization in PCM", IEEE Trans. Information Theory 28, 1982.

    Examples
    --------
    >>> import torch
    >>> from deepclust_ext.methods import KMeans
    >>> x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [9.0, 9.0], [9.0, 8.0]])
    >>> model = KMeans(n_clusters=2).fit(x)
    >>> bool(model.predict(torch.tensor([[8.0, 8.0]]))[0] == model.labels_[2])
    True
    """

    # It is what scores would stand beside.
    baseline: ClassVar[bool] = False

    n_clusters: int = shared("n_clusters", 10)
    _: KW_ONLY
    n_components: int | None = param(
        None, "Dimensions after PCA and whitening, where rows have unit length; None has neither.", at_least=1
    )
    spherical: bool = param(False, "Cluster by cosine: rows and centroids are brought to unit length.")
    init: Literal["k-means++", "random"] = param("k-means++", "The starting centroids.")
    n_init: int | None = param(
        None,
        "Starts, of which the one with the lowest inertia counts; None takes 10, and of large data, where N K is above "
        "3 million, as many as fit 30 million / (N K).",
        at_least=1,
    )
    max_iter: int = param(300, "The most updates of the centroids in a start.", at_least=1)
    max_memory: int | None = param(
        None,
        "The most bytes to take beside embeddings in a file that is mapped, .npy or .npz: they are never all in "
        "memory, and are not written to the run folder again. The same labels. On the CPU, without PCA and splits.",
        neutral=True,
        at_least=1,
    )
    seed: int = shared("seed", 0)
    device: Any = shared("device", "auto")

    def check_data(self, images: Any) -> None:
        """With what a bound of memory does not go with."""
        super().check_data(images)
        if self.max_memory is None:
            return
        device = check.device(self._name, self.device)
        for wrong, sentence in (
            (images.kind != "embeddings", f"'max_memory' must be None for images, got {self.max_memory}"),
            (images.values.dtype == torch.float64, "'data' must be float32 or of half precision with 'max_memory'"),
            (self.n_components is not None, "'n_components' must be None with 'max_memory'"),
            (self.max_cluster_size is not None, "'max_cluster_size' must be None with 'max_memory'"),
            (device.type != "cpu", f"'device' must be 'cpu' with 'max_memory', got {device}"),
        ):
            if wrong:
                raise ValueError(f"{self._name}: {sentence}")
        n, d = images.values.shape
        least = n * ITEM + d * BLOCKS
        if self.max_memory < least:
            raise ValueError(
                f"{self._name}: 'max_memory' must be at least {least} for the labels of {n} embeddings of {d} "
                f"dimensions, got {self.max_memory}"
            )

    def partition(self, rows: Tensor) -> Partition:
        """The best of several starts."""
        n_init = starts_of(len(rows), self.n_clusters) if self.n_init is None else self.n_init
        found = shared_kmeans(
            rows,
            self.n_clusters,
            init=self.init,
            n_init=n_init,
            max_iter=self.max_iter,
            spherical=self.spherical,
            seed=self.seed,
            max_memory=None if self.max_memory is None else self.max_memory - len(rows) * NAME,
        )
        record = {
            "inertia": found.inertia.item(),
            "n_init": n_init,
            "n_iter": int(found.n_iter),
            "n_empty": int(found.n_empty),
        }
        return Partition(found.labels, found.centroids, record)


def starts_of(n: int, n_clusters: int) -> int:
    """Starts for n rows where none are asked for: with many rows and clusters each is dear, and gains little.

    Examples
    --------
    >>> starts_of(12_000, 10), starts_of(100_000, 100), starts_of(10**6, 1000)
    (10, 3, 1)
    """
    return max(1, min(10, STARTS_WORTH // (n * n_clusters)))
