"""DeepCluster: k-means on a network's features, and the clusters as classes to train the network on."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from deepclust_ext.data.augment import Augmentation
from deepclust_ext.methods.base import Method
from deepclust_ext.methods.checks import check_choice, check_flag, check_integer, check_number
from deepclust_ext.methods.feature_space import FeatureSpace
from deepclust_ext.methods.loop import Training
from deepclust_ext.methods.optim import build_optimizer
from deepclust_ext.methods.pseudo_labels import PseudoLabelTraining
from deepclust_ext.methods.seeds import derive_generator, derive_seed
from deepclust_ext.nn import PseudoLabelNet, build_network, sobel_shape


class DeepClusterNet(PseudoLabelNet):
    """The network with its classifier of pseudo-labels, and the space its features are clustered in."""

    def __init__(self, *arguments: Any, n_components: int | None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.space = FeatureSpace(self.dim, self.head.out_features, n_components)


class DeepCluster(Method):
    r"""DeepCluster: cluster the features, train the network on the clusters, and again.

    A cycle takes the features :math:`f_\theta(x_i)` of all images in evaluation mode, brings them to the sphere (PCA,
    whitening, length 1; see `FeatureSpace`), clusters them by k-means, and trains for an epoch on

    .. math:: \min_{\theta, W} \frac1N \sum_i \mathrm{CE}\bigl(W^\top f_\theta(x_i),\, a_i\bigr),
              \qquad a = \text{k-means}_K\bigl(f_\theta(x_1), \dots, f_\theta(x_N)\bigr)

    with images drawn equally often from every cluster and the head W drawn anew each cycle. `labels_` are the clusters
    of the features after the last epoch; `predict` gives other images the nearest centroid's. Defaults are those of the
    deep dive's Fashion-MNIST runs, but for `n_clusters`; what it does not give is marked "ours". Configurations for
    other uses: `load_config("deepcluster", "small")`, and "figures", "fashion-mnist", "cifar10", "alexnet".

    Parameters
    ----------
    n_clusters : int, default 10
        K; more clusters than classes are usual (1,000 for CIFAR-10).
    n_components : int or None, default None
        Dimensions after PCA and whitening; None clusters the features as they are, at length 1. 256 for large networks.
    network : str or nn.Module, default "auto"
        A name of `build_network`, or any module whose last feature is used; a copy of it is trained. "auto": "lenet5"
        for 12 to 32 pixels in grey and below 15 in colour, "tiny8" below 12, "alexnet-small" up to 62, else "alexnet".
    width : float, default 1.0
        Multiplies the channels of a named network.
    sobel : bool, default False
        Give the network the images' edges in place of their pixels, as for colour images.
    epochs : int, default 50
        Passes over the images.
    cycle_epochs : int, default 1
        Epochs from one clustering to the next; a cycle.
    halt_after : int or None, default None
        Cluster in the first so many cycles only, 1 being once, and train on the last clusters from then on.
    reset_head_after_halt : bool, default True
        Whether the head starts anew in each cycle also when the clusters are those of the cycle before.
    uniform_sampling : bool, default True
        Draw images equally often from every cluster, so that a large one does not take over; False visits each once.
    batch_size : int, default 128
        Images in a step; an epoch leaves out those that do not fill a batch.
    augmentation : str, callable or mapping, default "flip"
        A preset's name, any transform, or a mapping of a preset's name and parameters; for training alone, features
        that are clustered are those of the plain images.
    optimizer : {"sgd", "adam", "adamw"}, default "sgd"
        "sgd" is without Nesterov's step.
    lr, momentum, weight_decay : float, float, float, default 0.1, 0.1, 1e-3
        Of the whole network; `momentum` is of "sgd" alone.
    head_lr, head_momentum : float or None, default None
        Of the head, where they differ: Caron et al. have lr 0.05 and momentum 0. Its momentum starts anew with it.
    schedule : {"constant", "cosine"}, default "constant"
        The learning rates over the run, after the warm-up.
    warmup : float, default 0.0
        Share of the run's steps, in [0, 1), over which the learning rates first rise linearly.
    kmeans_init : {"k-means++", "random"}, default "k-means++"
        How k-means starts; Caron et al. start from random features.
    kmeans_iterations : int, default 20
        The most updates of the centroids in a clustering.
    seed : int, default 0
        All random numbers come from it; torch's global state is left as it was.
    checkpoint_every : int, default 5
        Epochs between two checkpoints; ours.
    device : str or device, default "auto"
        "auto" takes a GPU if there is one.

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

    _TRAINING: ClassVar[type[Training]] = PseudoLabelTraining
    # One view a step, and figures of every cycle in the log: neither is a parameter.
    n_augmentations = 1
    evaluate_every = 1
    _RESULT_NEUTRAL: ClassVar[tuple[str, ...]] = ("checkpoint_every", "device")

    def __init__(
        self,
        n_clusters: int = 10,
        *,
        n_components: int | None = None,
        network: str | nn.Module = "auto",
        width: float = 1.0,
        sobel: bool = False,
        epochs: int = 50,
        cycle_epochs: int = 1,
        halt_after: int | None = None,
        reset_head_after_halt: bool = True,
        uniform_sampling: bool = True,
        batch_size: int = 128,
        augmentation: Any = "flip",
        optimizer: str = "sgd",
        lr: float = 0.1,
        momentum: float = 0.1,
        weight_decay: float = 1e-3,
        head_lr: float | None = None,
        head_momentum: float | None = None,
        schedule: str = "constant",
        warmup: float = 0.0,
        kmeans_init: str = "k-means++",
        kmeans_iterations: int = 20,
        seed: int = 0,
        checkpoint_every: int = 5,
        device: Any = "auto",
    ) -> None:
        self.n_clusters = n_clusters
        self.n_components = n_components
        self.network = network
        self.width = width
        self.sobel = sobel
        self.epochs = epochs
        self.cycle_epochs = cycle_epochs
        self.halt_after = halt_after
        self.reset_head_after_halt = reset_head_after_halt
        self.uniform_sampling = uniform_sampling
        self.batch_size = batch_size
        self.augmentation = augmentation
        self.optimizer = optimizer
        self.lr = lr
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.head_lr = head_lr
        self.head_momentum = head_momentum
        self.schedule = schedule
        self.warmup = warmup
        self.kmeans_init = kmeans_init
        self.kmeans_iterations = kmeans_iterations
        self.seed = seed
        self.checkpoint_every = checkpoint_every
        self.device = device

    def _augmentation(self, image_shape: tuple[int, int, int]) -> Augmentation:
        """Refuse one that changes the channels: the network standardises views by the images' own."""
        found = super()._augmentation(image_shape)
        if found.output_shape[0] != image_shape[0]:
            raise ValueError(
                f"{self._name}: 'augmentation' must keep the images' channels ({image_shape[0]}), "
                f"got {found.output_shape[0]}; convert the images beforehand, or use sobel=True for edges"
            )
        return found

    def _build(self, image_shape: tuple[int, int, int]) -> nn.Module:
        """A trunk with its head; a module that was given is copied: the parameter stays untouched."""
        network = _automatic(image_shape) if isinstance(self.network, str) and self.network == "auto" else self.network
        # A named network with branches is asked for one of them.
        options: dict[str, Any] = {"n_heads": 1} if isinstance(network, str) else {}
        trunk = build_network(
            copy.deepcopy(network),
            image_shape=sobel_shape(image_shape) if self.sobel else image_shape,
            width=self.width,
            seed=derive_seed(self.seed, "trunk"),
            **options,
        )
        net = DeepClusterNet(trunk, image_shape, self.n_clusters, sobel=self.sobel, n_components=self.n_components)
        if self.n_components is not None and self.n_components > net.dim:
            raise ValueError(
                f"{self._name}: 'n_components' must be at most the feature's dimensions ({net.dim}), "
                f"got {self.n_components}"
            )
        net.reset_head(derive_generator(self.seed, "head"))
        return net

    def _build_optimizer(self, net: Any) -> torch.optim.Optimizer:
        """The head is a group of its own, to be started anew."""
        head = list(net.head.parameters())
        body = [parameter for name, parameter in net.named_parameters() if not name.startswith("head.")]
        own: dict[str, Any] = {"params": head}
        if self.head_lr is not None:
            own["lr"] = self.head_lr
        if self.head_momentum is not None:
            own["momentum"] = self.head_momentum
        return build_optimizer(
            self.optimizer,
            [{"params": body}, own],
            lr=self.lr,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            nesterov=False,
        )

    def _outputs(self, net: Any, views: Tensor) -> tuple[Tensor, Tensor]:
        """The clusters' probabilities, and the feature."""
        features = net.features(views)
        return net.space.probabilities(features)[None], features

    def _check_parameters(self) -> None:
        """Refuse parameters of the cycle that cannot work."""
        super()._check_parameters()
        name = self._name
        check_number(name, "width", self.width, above=True)
        check_integer(name, "cycle_epochs", self.cycle_epochs, minimum=1)
        check_integer(name, "kmeans_iterations", self.kmeans_iterations, minimum=1)
        for parameter in ("n_components", "halt_after"):
            if getattr(self, parameter) is not None:
                check_integer(name, parameter, getattr(self, parameter), minimum=1)
        for parameter in ("sobel", "reset_head_after_halt", "uniform_sampling"):
            check_flag(name, parameter, getattr(self, parameter))
        check_choice(name, "kmeans_init", self.kmeans_init, ("k-means++", "random"))
        for parameter in ("momentum", "head_momentum"):
            value = getattr(self, parameter)
            if value is None and parameter == "head_momentum":
                continue
            check_number(name, parameter, value)
            if value >= 1:
                raise ValueError(f"{name}: '{parameter}' must be below 1, got {value}")
        if self.head_lr is not None:
            check_number(name, "head_lr", self.head_lr, above=True)
        if self.head_momentum is not None and self.optimizer != "sgd":
            raise ValueError(
                f"{name}: 'head_momentum' must be None unless 'optimizer' is 'sgd', got {self.optimizer!r}"
            )

    def _check_data(self, images: Any) -> None:
        """Refuse data that cannot be clustered so."""
        super()._check_data(images)
        if self.n_components is not None and self.n_components > len(images):
            raise ValueError(
                f"{self._name}: 'n_components' must be at most the number of images ({len(images)}), "
                f"got {self.n_components}"
            )


def _automatic(image_shape: tuple[int, int, int]) -> str:
    """Choose among the networks with which DeepCluster was studied, and the smallest of ours for less."""
    channels, height, width = image_shape
    if min(height, width) < 12:
        return "tiny8"
    if (channels == 1 and max(height, width) <= 32) or min(height, width) < 15:
        return "lenet5"
    return "alexnet-small" if min(height, width) < 63 else "alexnet"
