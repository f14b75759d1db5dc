"""DeepCluster: k-means on a network's features, and the clusters as classes to train the network on."""

from __future__ import annotations

import copy
import time
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from deepclust_ext.data.augment import Augmentation
from deepclust_ext.data.images import ImageData
from deepclust_ext.evaluate.partition import partition_figures
from deepclust_ext.methods.base import Method
from deepclust_ext.methods.parameters import Optimizer, Precision, Schedule, documented, param, shared
from deepclust_ext.nn import DeepClusterNet, build_deepcluster_net, check_components
from deepclust_ext.training.inference import all_features
from deepclust_ext.training.learner import Conclusion, Learner, Record, State, StepLoss
from deepclust_ext.training.optim import build_optimizer
from deepclust_ext.training.place import Place, scheduled
from deepclust_ext.training.seeds import derive_generator, derive_seed
from deepclust_ext.training.sharing import shared_kmeans
from deepclust_ext.training.visits import uniform_over_clusters
from deepclust_ext.training.watch import occupancy_figures


@documented
@dataclass(eq=False, repr=False)
class DeepCluster(Method):
    r"""DeepCluster: cluster the features, train the network on the clusters, and again.

    A cycle takes the features :math:`f_\theta(x_i)` of all images in evaluation mode, brings them to the sphere (PCA,
    whitening, L2-normalised; see `FeatureSpace`), clusters them by k-means, and trains for an epoch on

    .. math:: \min_{\theta, W} \frac1N \sum_i \mathrm{CE}\bigl(W^\top f_\theta(x_i),\, a_i\bigr),
              \qquad a = \text{k-means}_K\bigl(f_\theta(x_1), \dots, f_\theta(x_N)\bigr)

    with the head W drawn anew each cycle. `labels_` are the clusters of the features after the last epoch; `predict`
    gives other images the nearest centroid's. Defaults are those of the deep dive's Fashion-MNIST runs, but for
    `n_clusters`. Configurations: `load_config("deepcluster", "small")`, "figures", "fashion-mnist" and others.

    Parameters
    ----------
    {parameters}

    References
    ----------
    Caron et al., "Deep Clustering for Unsupervised Learning of Visual Features", ECCV 2018. Mustapha, Khreich and
    Masri, "A Deep Dive into Deep Cluster", 2022 (the defaults, and halting).

    Examples
    --------
    >>> from deepclust_ext.methods import DeepCluster
    >>> model = DeepCluster(n_clusters=10, epochs=20)
    >>> labels = model.fit_predict("fashion-mnist", run="runs/fashion")  # doctest: +SKIP
    """

    standardises: ClassVar[bool] = True

    n_clusters: int = shared("n_clusters", 10, "More than classes are usual (1,000 for CIFAR-10).")
    _: KW_ONLY
    n_components: int | None = param(None, "Dimensions after PCA and whitening; None has neither.", at_least=1)
    network: str | nn.Module = param(
        "auto",
        'A name of `build_network`, or any module whose last feature is used; a copy of it is trained. "auto" is '
        '"lenet5" for small grey images, "tiny8" below 12 pixels, "alexnet-small" up to 62, else "alexnet".',
    )
    width: float = shared("width", 1.0)
    sobel: bool = param(False, "Give the network the images' edges in place of their pixels, as for colour images.")
    epochs: int = shared("epochs", 50)
    cycle_epochs: int = param(1, "Epochs from one clustering to the next; a cycle.", at_least=1)
    halt_after: int | None = param(None, "Cluster in so many cycles, then train on the last clusters.", at_least=1)
    reset_head_after_halt: bool = param(True, "Start the head anew in every cycle after the halt, too.")
    uniform_sampling: bool = param(True, "Draw images equally often from every cluster; False: each image once.")
    batch_size: int = shared("batch_size", 128)
    augmentation: Any = shared("augmentation", "flip", "For training alone: plain images are clustered.")
    optimizer: Optimizer = shared("optimizer", "sgd", '"sgd" is without Nesterov\'s step.')
    lr: float = shared("lr", 0.1)
    momentum: float = param(0.1, 'Of "sgd" alone.', at_least=0, below=1)
    weight_decay: float = shared("weight_decay", 1e-3)
    head_lr: float | None = param(None, "Of the head, where it differs: Caron et al. have 0.05.", above=0)
    head_momentum: float | None = param(
        None, "Of the head, where it differs: Caron et al. have 0. It starts anew with the head.", at_least=0, below=1
    )
    schedule: Schedule = shared("schedule", "constant")
    warmup: float = shared("warmup", 0.0)
    kmeans_init: Literal["k-means++", "random"] = param(
        "k-means++", "How k-means starts; Caron et al. start from random features."
    )
    kmeans_iterations: int = param(20, "The most updates of the centroids in a clustering.", at_least=1)
    seed: int = shared("seed", 0)
    checkpoint_every: int = shared("checkpoint_every", 5, "Ours.")
    precision: Precision = shared("precision", "float32")
    device: Any = shared("device", "auto")

    def make_net(self, view_shape: tuple[int, int, int]) -> DeepClusterNet:
        """A trunk with its head; a module that was given is copied: the parameter stays untouched."""
        net = build_deepcluster_net(
            copy.deepcopy(self.network),
            view_shape,
            self.n_clusters,
            width=self.width,
            sobel=self.sobel,
            n_components=self.n_components,
            seed=derive_seed(self.seed, "trunk"),
        )
        net.reset_head(derive_generator(self.seed, "head"))
        return net

    def make_learner(self, net: DeepClusterNet, images: ImageData, augmentation: Augmentation) -> DeepClusterLearner:
        """The method at work on the images."""
        return DeepClusterLearner(self, net, images, augmentation)

    def check_parameters(self) -> None:
        """With what two parameters say together."""
        super().check_parameters()
        if self.head_momentum is not None and self.optimizer != "sgd":
            raise ValueError(f"{self._name}: 'head_momentum' needs 'optimizer' to be 'sgd', got {self.optimizer!r}")

    def check_data(self, images: ImageData) -> None:
        """With what PCA needs."""
        super().check_data(images)
        check_components(self.n_components, "the number of images", len(images))


class DeepClusterLearner(Learner):
    """Clusters before the first epoch of every cycle, from the weights and the seed alone."""

    def __init__(self, p: DeepCluster, net: DeepClusterNet, images: ImageData, augmentation: Augmentation) -> None:
        head: dict[str, Any] = {"params": list(net.head.parameters())}
        head |= {} if p.head_lr is None else {"lr": p.head_lr}
        head |= {} if p.head_momentum is None else {"momentum": p.head_momentum}
        # The head is a group of its own, to be started anew.
        groups = [{"params": net.body_parameters()}, head]
        optimizer = build_optimizer(
            p.optimizer, groups, lr=p.lr, weight_decay=p.weight_decay, momentum=p.momentum, nesterov=False
        )
        super().__init__(net, optimizer, images, augmentation)
        self.p, self.watched = p, (1, p.n_clusters)
        self.pseudo_labels: Tensor | None = None
        # The same on the device: a step must not wait for a copy.
        self._targets: Tensor | None = None
        net.standardise(images.images)

    def rate(self, place: Place) -> float:
        """By the schedule's name."""
        return scheduled(self.p.schedule, place, warmup=self.p.warmup)

    def begin_epoch(self, place: Place) -> Record:
        """Cluster where a cycle begins, and start its head anew."""
        figures: Record = {}
        cycle, inside = divmod(place.epoch, self.p.cycle_epochs)
        halted = self.p.halt_after is not None and cycle >= self.p.halt_after
        if inside == 0:
            if not halted:
                labels, figures = self._cluster(self.net, cycle)
                self._label(labels)
            if not halted or self.p.reset_head_after_halt:
                self.net.reset_head(derive_generator(self.p.seed, "head", cycle))
                for parameter in self.net.head.parameters():
                    # What the optimizer remembers of a head that is gone.
                    self.optimizer.state.pop(parameter, None)
        counts = torch.bincount(cast(Tensor, self.pseudo_labels), minlength=self.p.n_clusters)
        return {**occupancy_figures(counts[None]), **figures}

    def visits(self, place: Place, generator: torch.Generator) -> Tensor:
        """Every cluster equally often, or every image once."""
        if not self.p.uniform_sampling:
            return super().visits(place, generator)
        return uniform_over_clusters(cast(Tensor, self.pseudo_labels), generator)

    def forward(self, views: Tensor, index: Tensor, place: Place) -> Tensor:  # noqa: ARG002
        """The head's logits (m, K)."""
        logits: Tensor = self.net(views)
        return logits

    def loss(self, outputs: Tensor, index: Tensor, place: Place) -> StepLoss:  # noqa: ARG002
        """Cross-entropy of the head against the pseudo-labels."""
        targets = cast(Tensor, self._targets)[index]
        loss = nn.functional.cross_entropy(outputs, targets)
        return StepLoss(loss, {"accuracy": (outputs.detach().argmax(1) == targets).float().mean()})

    def conclude(self, place: Place) -> Conclusion:
        """Cluster the last features: the labels of the run."""
        net = copy.deepcopy(self.net)
        _, figures = self._cluster(net, -(-place.epoch // self.p.cycle_epochs))
        return Conclusion(net, record=figures, centroids=net.space.centroids.cpu())

    def state(self) -> State:
        """The pseudo-labels, which are another epoch's when clustering has halted."""
        return {"pseudo_labels": self.pseudo_labels}

    def load(self, state: State) -> None:
        """Take them over."""
        if state["pseudo_labels"] is not None:
            self._label(state["pseudo_labels"])

    def _label(self, labels: Tensor) -> None:
        """Train on these clusters (N,) from now on."""
        self.pseudo_labels, self._targets = labels, labels.to(self.images.images.device)

    def _cluster(self, net: DeepClusterNet, cycle: int) -> tuple[Tensor, Record]:
        """Cluster the images in the space of `net`; the labels, and how they relate to the last ones and to classes."""
        p, start = self.p, time.perf_counter()
        features = all_features(net, self.augmentation, self.images.images)
        seed = derive_seed(p.seed, "kmeans", cycle)
        options: dict[str, Any] = {"init": p.kmeans_init, "max_iter": p.kmeans_iterations}
        result = net.space.fit(features, **options, seed=seed, search=shared_kmeans)
        labels = result.labels.cpu()
        figures: Record = {"cycle": cycle, "objective": float(result.inertia) / len(labels)}
        return labels, figures | {
            "kmeans_iterations": int(result.n_iter),
            "empty_met": int(result.n_empty),
            **partition_figures(labels, p.n_clusters, before=self.pseudo_labels, classes=self.images.labels),
            "clustering_seconds": round(time.perf_counter() - start, 4),
        }
