"""K-means as a method: of pixels or embeddings, with a run folder like any other."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from deepclust_ext.methods.direct import Direct, Partition
from deepclust_ext.methods.parameters import documented, param, shared
from deepclust_ext.ops.kmeans import kmeans

# Starts times rows times clusters, where the number of starts is left open.
STARTS_WORTH = 30_000_000


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
    seed: int = shared("seed", 0)
    device: Any = shared("device", "auto")

    def partition(self, rows: Tensor) -> Partition:
        """The best of several starts."""
        n_init = starts_of(len(rows), self.n_clusters) if self.n_init is None else self.n_init
        found = kmeans(
            rows,
            self.n_clusters,
            init=self.init,
            n_init=n_init,
            max_iter=self.max_iter,
            spherical=self.spherical,
            seed=self.seed,
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
