"""JULE: merge clusters of a network's features, train the network on the clusters, and again until K are left."""

from __future__ import annotations

import copy
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deepclust_ext import Agglomeration, agglomerate
from deepclust_ext.data.augment import Augmentation
from deepclust_ext.data.images import ImageData
from deepclust_ext.methods.base import Method
from deepclust_ext.methods.jule_learner import JULELearner
from deepclust_ext.methods.parameters import Optimizer, Precision, documented, param, shared
from deepclust_ext.nn import JULENet, build_jule_net
from deepclust_ext.ops.cut import smallest_cluster
from deepclust_ext.training.seeds import derive_seed
from deepclust_ext.training.sharing import shared_affinity_graph


@documented
@dataclass(eq=False, repr=False)
class JULE(Method):
    r"""Joint unsupervised learning of representations and image clusters (JULE).

    The first clusters are chains of nearest neighbours among the images' pixels. A period trains the network on its
    clusters y by the weighted triplet loss, then merges :math:`\lceil \eta n \rceil` of the n clusters by the
    affinities of their features, those most alike first (see `agglomerate`):

    .. math:: \min_\theta \sum_{y_i = y_j \ne y_k} \bigl[\gamma \lVert f_i - f_j \rVert^2
              - \lVert f_i - f_k \rVert^2 + \text{margin}\bigr]_+

    It ends when K clusters are left, as the data decide. `labels_` are those of a merge of the last features that
    starts again from chains of neighbours ("rc"), or the end of the run's own merges ("sf"); the conclusion in the log
    and in `metrics_` has both. `predict` gives other images the nearest centroid's. For an unknown number of clusters,
    give the smallest that would do, and cut `merge_tree` anywhere above it. Configurations:
    `load_config("jule", "faces")`, "paper".

    Parameters
    ----------
    {parameters}

    References
    ----------
    Yang, Parikh and Batra, "Joint Unsupervised Learning of Deep Representations and Image Clusters", CVPR 2016.

    Examples
    --------
    >>> from deepclust_ext.methods import JULE
    >>> labels = JULE(n_clusters=10).fit_predict("mnist5k", run="runs/mnist5k")  # doctest: +SKIP
    """

    n_clusters: int = shared("n_clusters", 10, "The run ends when so many are left.")
    _: KW_ONLY
    n_neighbors: int = param(20, "Ks, neighbours of an image in the graph.", at_least=1)
    a: float = param(1.0, "Width of the affinities: their sigma^2 is a times the mean squared distance.", above=0)
    kc: int = param(5, "Clusters near a cluster that a merge looks at; 1 drops the local term.", at_least=1)
    lam: float = param(1.0, "Weight of the lead of the nearest cluster over the others; 0 is AC-GDL.", at_least=0)
    update: Literal["exact", "slide", "sum"] = param("exact", "How a merge's affinities are found; see `agglomerate`.")
    eta: float = param(
        0.9, "Share of the clusters that a period merges; the paper has 0.2 for faces.", above=0, below=1
    )
    period_epochs: int = param(20, "Epochs of a period.", at_least=1)
    reinitialise: bool = param(False, "Start each period from the initial weights.")
    result: Literal["rc", "sf"] = param(
        "rc", "Which merge gives `labels_`: one from chains of neighbours anew, or the run's own."
    )
    min_cluster_size: int | None = param(
        None,
        "Smaller clusters do not count as any of the K: their images join the nearest of the others. None takes "
        "`n_neighbors`, or a tenth of N / K if that is less; 1 is the paper's rule, where two or three stray images "
        "can hold a place. Ours.",
        at_least=1,
    )
    gamma: float = param(1.0, "Weight of the distance within a cluster. The paper has 2; 1 is ours.", above=0)
    margin: float = param(0.2, "By how much images of other clusters are to be farther away.", at_least=0)
    n_negatives: int = param(20, "Images of other clusters against each pair.", at_least=1)
    network: str | nn.Module = param(
        "jule",
        "A name of `build_network`, or any module whose last feature is used; a copy of it is trained. The paper's, "
        '"jule", has as many convolutions as bring the images to about 10 x 10.',
    )
    width: float = shared("width", 1.0)
    dim: int = param(160, 'Dimensions of the embedding of "jule".', at_least=1)
    batch_size: int = shared("batch_size", 100)
    augmentation: Any = shared("augmentation", "none", "The paper has none.")
    optimizer: Optimizer = shared("optimizer", "sgd", '"sgd" is without Nesterov\'s step.')
    lr: float = shared("lr", 0.01, "It falls as (1 + 1e-4 step)^-0.75.")
    momentum: float = param(0.9, 'Of "sgd" alone.', at_least=0, below=1)
    weight_decay: float = shared("weight_decay", 5e-5)
    epochs: int = shared("epochs", 200, "The most: the run ends when its clusters are merged.")
    seed: int = shared("seed", 0)
    checkpoint_every: int = shared("checkpoint_every", 1, "Ours.")
    precision: Precision = shared("precision", "float32")
    device: Any = shared("device", "auto")

    def make_net(self, view_shape: tuple[int, int, int]) -> JULENet:
        """A trunk with its embedding; a module that was given is copied: the parameter stays untouched."""
        options: dict[str, Any] = {"width": self.width, "dim": self.dim, "seed": derive_seed(self.seed, "trunk")}
        return build_jule_net(copy.deepcopy(self.network), view_shape, self.n_clusters, **options)

    def make_learner(self, net: JULENet, images: ImageData, augmentation: Augmentation) -> JULELearner:
        """The method at work on the images."""
        return JULELearner(self, net, images, augmentation)

    def check_data(self, images: ImageData) -> None:
        """With what the size-aware cut needs."""
        super().check_data(images)
        most = len(images) // self.n_clusters
        if self.min_cluster_size is not None and self.min_cluster_size > most:
            raise ValueError(f"JULE: 'min_cluster_size' must be at most N / K ({most}), got {self.min_cluster_size}")

    def smallest_cluster(self, n_images: int) -> int:
        """`min_cluster_size`, or what stands for it with so many images."""
        return self.min_cluster_size or smallest_cluster(n_images, self.n_clusters, self.n_neighbors)

    def merge(self, features: Tensor, n_clusters: int, labels: Tensor | None = None) -> Agglomeration:
        """Merge clusters of features (N, d), by default chains of nearest neighbours, until `n_clusters` are left."""
        graph = shared_affinity_graph(features, min(self.n_neighbors, len(features) - 1), a=self.a)
        rules: dict[str, Any] = {"kc": self.kc, "lam": self.lam, "update": self.update}
        return agglomerate(graph, n_clusters, labels=labels, x=features, **rules)

    def merge_tree(self, data: Any) -> Agglomeration:
        """Merge the embeddings of images from chains of neighbours to one cluster; `data` as in `predict`.

        `deepclust_ext.cut(tree, 25, min_size=20, x=torch.from_numpy(model.transform(data)))` cuts it at 25 clusters.
        """
        return self.merge(torch.from_numpy(self.transform(data)), 1)
