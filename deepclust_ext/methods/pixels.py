"""Clustering of the pixels as they are: k-means, and merging of a graph of neighbours. The floor of every method."""

from __future__ import annotations

import copy
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch

from deepclust_ext.data.augment import Augmentation
from deepclust_ext.data.images import ImageData
from deepclust_ext.methods.base import Method
from deepclust_ext.methods.parameters import documented, param, shared
from deepclust_ext.nn.centroids import NearestCentroid
from deepclust_ext.ops.affinity_graph import affinity_graph
from deepclust_ext.ops.agglomerate import agglomerate
from deepclust_ext.ops.cut import centroids_of
from deepclust_ext.ops.kmeans import kmeans
from deepclust_ext.training.inference import all_features
from deepclust_ext.training.learner import Conclusion, Learner, Record
from deepclust_ext.training.place import Place
from deepclust_ext.training.seeds import derive_seed


class Untrained(Method):
    """A method without training: `cluster` is all of it, and new images go to the nearest mean of a cluster."""

    # No epoch, no step: the parameters of a loop have no meaning here.
    batch_size, epochs, checkpoint_every = 1, 0, 1
    normalise = False

    def cluster(self, x: torch.Tensor) -> tuple[torch.Tensor, Record]:
        """Labels (N,) of rows, on their device, and figures for the log."""
        raise NotImplementedError(f"{self._name}.cluster: a method must define it")

    def make_net(self, view_shape: tuple[int, int, int]) -> NearestCentroid:
        """Centroids to be set."""
        return NearestCentroid(view_shape, self.n_clusters, normalise=self.normalise)

    def make_learner(self, net: NearestCentroid, images: ImageData, augmentation: Augmentation) -> PixelLearner:
        """The method at work on the images."""
        return PixelLearner(self, net, images, augmentation)


class PixelLearner(Learner):
    """Done before it starts; its conclusion clusters."""

    def __init__(self, p: Untrained, net: NearestCentroid, images: ImageData, augmentation: Augmentation) -> None:
        super().__init__(net, torch.optim.SGD(net.parameters(), lr=1.0), images, augmentation)
        self.p = p

    def done(self, place: Place) -> bool:  # noqa: ARG002
        """Always."""
        return True

    def conclude(self, place: Place) -> Conclusion:  # noqa: ARG002
        """Cluster the images, and keep the means."""
        net = copy.deepcopy(self.net)
        if net.normalise:
            net.set_mean(self.images.images)
        x = all_features(net, self.augmentation, self.images.images)
        labels, record = self.p.cluster(x)
        rows, of = x.cpu(), labels.cpu()
        means = centroids_of(rows, of, int(of.max()) + 1).to(rows.dtype)
        net.set_centroids(means.to(x.device), (rows - means[of]).square().sum(1))
        return Conclusion(net, labels=labels, record=record)


@documented
@dataclass(eq=False, repr=False)
class PixelKMeans(Untrained):
    """k-means on pixels: seconds, and what every other method is measured against.

    Exact Lloyd iterations on the images as rows; see `deepclust_ext.kmeans`.

    Parameters
    ----------
    {parameters}

    Examples
    --------
    >>> from deepclust_ext.methods import PixelKMeans
    >>> labels = PixelKMeans(10).fit_predict("digits", run="runs/kmeans")  # doctest: +SKIP
    """

    n_clusters: int = shared("n_clusters", 10)
    _: KW_ONLY
    n_init: int = param(10, "Starts, of which the one with the lowest inertia counts.", at_least=1)
    max_iter: int = param(300, "The most updates of the centroids in a start.", at_least=1)
    augmentation: Any = shared("augmentation", "none", "Its plain views are clustered.")
    seed: int = shared("seed", 0)
    device: Any = shared("device", "auto")

    def cluster(self, x: torch.Tensor) -> tuple[torch.Tensor, Record]:
        """By k-means."""
        seed = derive_seed(self.seed, "kmeans")
        found = kmeans(x, self.n_clusters, n_init=self.n_init, max_iter=self.max_iter, seed=seed)
        return found.labels, {"inertia": float(found.inertia), "iterations": int(found.n_iter)}


@documented
@dataclass(eq=False, repr=False)
class PixelAffinity(Untrained):
    """Agglomerative clustering of pixels by a graph of neighbours: JULE's criterion without its network.

    The images are centred per pixel and L2-normalised; see `deepclust_ext.affinity_graph` and `agglomerate`.

    Parameters
    ----------
    {parameters}

    References
    ----------
    Zhang, Wang, Zhao and Tang, "Graph degree linkage: agglomerative clustering on a directed graph", ECCV 2012. Yang,
    Parikh and Batra, "Joint unsupervised learning of deep representations and image clusters" (JULE), CVPR 2016.

    Examples
    --------
    >>> from deepclust_ext.methods import PixelAffinity
    >>> labels = PixelAffinity(10).fit_predict("digits", run="runs/affinity")  # doctest: +SKIP
    """

    n_clusters: int = shared("n_clusters", 10)
    _: KW_ONLY
    k: int = param(20, "Neighbours of an image; all others where there are fewer.", at_least=1)
    a: float = param(1.0, "The scale of affinities.", above=0)
    kc: int = param(5, "Neighbours in a cluster's score; 1 drops the local term.", at_least=1)
    lam: float = param(0.0, "Weight of the local term: 0 is graph degree linkage, 1 is JULE's.", at_least=0)
    min_size: int | None = param(
        None, "Images in a cluster at least; None takes about min(20, N / (10 K)), and 1 heeds no size.", at_least=1
    )
    augmentation: Any = shared("augmentation", "none", "Its plain views are clustered.")
    seed: int = shared("seed", 0, "The labels do not depend on it.")
    device: Any = shared("device", "auto")
    normalise = True

    def cluster(self, x: torch.Tensor) -> tuple[torch.Tensor, Record]:
        """By merging."""
        n = len(x)
        size = self.min_size if self.min_size is not None else max(1, min(20, n // (10 * self.n_clusters)))
        graph = affinity_graph(x, min(self.k, n - 1), a=self.a)
        found = agglomerate(graph, self.n_clusters, kc=self.kc, lam=self.lam, x=x, min_size=min(size, n))
        first = int(found.initial_labels.max()) + 1
        return found.labels, {"first_clusters": first, "min_size": size, "clusters_found": found.n_clusters}
