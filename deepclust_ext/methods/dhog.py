"""DHOG: heads from simple to complex, alike over augmentations and unlike the heads before."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

import deepclust_ext
from deepclust_ext.methods.base import Method
from deepclust_ext.methods.checks import check_choice, check_integer, check_number
from deepclust_ext.methods.objective import Objective
from deepclust_ext.methods.seeds import derive_seed
from deepclust_ext.nn import ClusterNet, build_network


class DHOG(Method):
    r"""Deep hierarchical object grouping, and IIC as its case without a push.

    With :math:`z_i` the probabilities of head i, MI pooled over augmentations and sg the stop-gradient,

    .. math:: \max_\theta \frac1k \sum_{i=1}^{k} MI(z_i, z_i')
              - \alpha \sum_{i=2}^{k} \frac1i \sum_{j<i} MI(z_i, \mathrm{sg}(z_j))

    The head that `labels_` come from is chosen without labels, by how its labels of two views agree. Defaults
    are the paper's where it gives a value; those it does not give are marked "ours". Configurations for other
    uses: `load_config("dhog", "small")`, and "iic", "paper-cifar10".

    Parameters
    ----------
    n_clusters : int, default 10
        K, clusters of every head.
    alpha : float, default 0.05
        Weight of the push; 0 is the paper's ablation, IIC with DHOG's augmentation, network and heads.
    pooling : {"pooled", "mean"}, default "pooled"
        One joint over all pairs of augmentations, as in the paper's equation 1, or the mean of one a pair.
    push_norm : {"index", "count"}, default "index"
        Divide head i's push by i, as equation 4 is printed, or by its number of comparisons, i - 1.
    push_trunk : {"shared", "detach"}, default "shared"
        "detach" lets the push move the heads' own layers only, not the network below them. The paper does not
        say; "shared" is ours.
    lamb : float, default 1.0
        Weight of the marginals' entropies in the main heads' pull; above 1 asks for more even clusters.
    n_augmentations : int, default 4
        A, views of each image in a step.
    batch_size : int, default 220
        Images in a step (A times as many views); an epoch leaves out the images that do not fill a batch.
    network : str or nn.Module, default "resnet18"
        A name of `build_network`, or any module that returns a list of features; a copy of it is trained.
    width : float, default 1.0
        Multiplies the channels of a named network; the paper doubles them for STL-10.
    n_heads : int or None, default 8
        Features of a named network, each with a head: 3 from shared blocks and 5 from parallel last blocks.
        None takes the network's own number. A module brings its own.
    hidden : int, default 200
        Width of each head's hidden layer; 0 makes the heads linear.
    n_sub_heads : int, default 1
        Output layers on each head's hidden layer; IIC has 5. Sub-head s is pushed from the sub-heads s of earlier
        heads only: those of one feature have no order from simple to complex.
    over_clusters : int, optional
        Clusters of an over-clustering twin of each head, which joins the pull only; 70 for STL-10.
    over_mode : {"joint", "alternate"}, default "joint"
        Add the twins' pull to the loss (ours; the paper gives no weight), or alternate as IIC does: passes over
        the images for the twins, then passes for the main heads.
    over_passes : int, default 1
        Passes of an epoch that train the twins when `over_mode` is "alternate".
    main_passes : int, default 2
        Passes of an epoch that train the main heads when `over_mode` is "alternate".
    augmentation : str, callable or mapping, default "fast-autoaugment"
        A preset's name, any transform, or a mapping of a preset's name and parameters. All views of an image
        come from it: a plain view beside an augmented one has a useless optimum.
    optimizer, lr, weight_decay : {"adam", "adamw", "sgd"}, float, float, default "adam", 1e-3, 0.0
        Ours; lr is the largest learning rate of the run.
    epochs : int, default 1000
        Passes over the images, or with `over_mode` "alternate" rounds of passes.
    schedule : {"cosine", "constant"}, default "cosine"
        The learning rate over the run, after the warm-up.
    warmup : float, default 0.0
        Share of the run's steps, in [0, 1), over which the learning rate first rises linearly.
    selection : {"nmi", "mi"}, default "nmi"
        The agreement by which the head is chosen. NMI prefers a head that uses few of its clusters well; MI,
        which is ours, one that uses more.
    seed : int, default 0
        All random numbers come from it; torch's global state is left as it was.
    evaluate_every, checkpoint_every : int, default 10
        Epochs between two labellings of the training images for the log, and between two checkpoints.
    device : str or device, default "auto"
        "auto" takes a GPU if there is one.

    References
    ----------
    "DHOG: Deep Hierarchical Object Grouping", arXiv 2003.08821. Ji et al., "Invariant Information Clustering
    for Unsupervised Image Classification and Segmentation", 2019.

    Examples
    --------
    >>> from deepclust_ext.methods import DHOG, load_config
    >>> model = DHOG(n_clusters=10, **load_config("dhog", "small"))
    >>> labels = model.fit_predict("mnist5k", run="runs/mnist5k")  # doctest: +SKIP
    """

    # Mutual information is between views: one is not enough.
    _LEAST_VIEWS: ClassVar[int] = 2

    def __init__(
        self,
        n_clusters: int = 10,
        *,
        alpha: float = 0.05,
        pooling: str = "pooled",
        push_norm: str = "index",
        push_trunk: str = "shared",
        lamb: float = 1.0,
        n_augmentations: int = 4,
        batch_size: int = 220,
        network: str | nn.Module = "resnet18",
        width: float = 1.0,
        n_heads: int | None = 8,
        hidden: int = 200,
        n_sub_heads: int = 1,
        over_clusters: int | None = None,
        over_mode: str = "joint",
        over_passes: int = 1,
        main_passes: int = 2,
        augmentation: Any = "fast-autoaugment",
        optimizer: str = "adam",
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        epochs: int = 1000,
        schedule: str = "cosine",
        warmup: float = 0.0,
        selection: str = "nmi",
        seed: int = 0,
        evaluate_every: int = 10,
        checkpoint_every: int = 10,
        device: Any = "auto",
    ) -> None:
        self.n_clusters = n_clusters
        self.alpha = alpha
        self.pooling = pooling
        self.push_norm = push_norm
        self.push_trunk = push_trunk
        self.lamb = lamb
        self.n_augmentations = n_augmentations
        self.batch_size = batch_size
        self.network = network
        self.width = width
        self.n_heads = n_heads
        self.hidden = hidden
        self.n_sub_heads = n_sub_heads
        self.over_clusters = over_clusters
        self.over_mode = over_mode
        self.over_passes = over_passes
        self.main_passes = main_passes
        self.augmentation = augmentation
        self.optimizer = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.schedule = schedule
        self.warmup = warmup
        self.selection = selection
        self.seed = seed
        self.evaluate_every = evaluate_every
        self.checkpoint_every = checkpoint_every
        self.device = device

    def _objective(self, net: Any, views: Tensor, stage: str) -> Objective:
        """Pull the views of each image together, push each head from those before it."""
        features = net.features(views)
        loss: Tensor | float = 0.0
        terms: dict[str, Tensor] = {}
        main, over = net.heads(features, stage)
        if main is not None:
            detach = self.push_trunk == "detach" and self.alpha > 0
            loss, terms["pull"], terms["push"] = self._loss(main, alpha=0.0 if detach else self.alpha)
            if detach:
                # The push alone, from features the gradient does not pass: it moves the heads' own layers.
                cut, _ = net.heads([feature.detach() for feature in features], "main")
                pushed, _, terms["push"] = self._loss(cut, alpha=self.alpha)
                loss = loss + pushed - self._loss(cut, alpha=0.0)[0]
        if over is not None:
            over_loss, terms["over_pull"], _ = self._loss(over, alpha=0.0, lamb=1.0)
            loss = loss + over_loss
        return Objective(torch.as_tensor(loss), None if main is None else self._by_view(main), terms)

    def _loss(self, probabilities: Tensor, *, alpha: float, lamb: float | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, and each head's pull and push, of (H, A * n, K); sub-head s is pushed from earlier sub-heads s."""
        if probabilities.is_cuda and deepclust_ext.build_info()["cuda_library"] is None:
            # Without its CUDA kernel the loss is taken on the CPU: some hundred kB a step.
            probabilities = probabilities.cpu()
        lamb = self.lamb if lamb is None else lamb
        ladders = self._by_view(probabilities).unflatten(1, (-1, self.n_sub_heads)).unbind(2)
        found = [
            deepclust_ext.dhog_loss(p, alpha=alpha, pooling=self.pooling, push_norm=self.push_norm, lamb=lamb)
            for p in ladders
        ]
        pull = torch.stack([part.pull for part in found], dim=1).flatten()
        push = torch.stack([part.push.sum(1) for part in found], dim=1).flatten()
        return torch.stack([part.loss for part in found]).mean(), pull, push

    def _by_view(self, probabilities: Tensor) -> Tensor:
        """Split (H, A * n, K) into (A, H, n, K)."""
        heads, _, clusters = probabilities.shape
        return probabilities.view(heads, self.n_augmentations, -1, clusters).transpose(0, 1)

    def _passes(self) -> tuple[str, ...]:
        """IIC's alternating passes, or one pass for everything."""
        if self.over_clusters is not None and self.over_mode == "alternate":
            return ("over",) * self.over_passes + ("main",) * self.main_passes
        return ("both",)

    def _build(self, image_shape: tuple[int, int, int]) -> nn.Module:
        """A trunk with its heads; a module that was given is copied: the parameter stays untouched."""
        options: dict[str, Any] = {"width": self.width, "seed": derive_seed(self.seed, "trunk")}
        if self.n_heads is not None and isinstance(self.network, str):
            options["n_heads"] = self.n_heads
        return ClusterNet(
            build_network(copy.deepcopy(self.network), image_shape=image_shape, **options),
            image_shape,
            self.n_clusters,
            n_sub_heads=self.n_sub_heads,
            over_clusters=self.over_clusters,
            hidden=self.hidden,
            seed=derive_seed(self.seed, "heads"),
        )

    def _outputs(self, net: Any, views: Tensor) -> tuple[Tensor, Tensor]:
        """The main heads' probabilities, and the last feature."""
        features = net.features(views)
        return net.heads(features, "main")[0], features[-1]

    def _n_heads(self, net: Any) -> int:
        """Features times sub-heads."""
        return int(net.n_heads)

    def _check_parameters(self) -> None:
        """Refuse parameters of the objective that cannot work."""
        super()._check_parameters()
        name = self._name
        check_number(name, "alpha", self.alpha)
        check_number(name, "lamb", self.lamb)
        check_number(name, "width", self.width, above=True)
        check_integer(name, "n_sub_heads", self.n_sub_heads, minimum=1)
        check_integer(name, "hidden", self.hidden, minimum=0)
        for parameter in ("over_passes", "main_passes"):
            check_integer(name, parameter, getattr(self, parameter), minimum=1)
        for parameter, least in (("n_heads", 1), ("over_clusters", 2)):
            if getattr(self, parameter) is not None:
                check_integer(name, parameter, getattr(self, parameter), minimum=least)
        check_choice(name, "pooling", self.pooling, ("pooled", "mean"))
        check_choice(name, "push_norm", self.push_norm, ("index", "count"))
        check_choice(name, "push_trunk", self.push_trunk, ("shared", "detach"))
        check_choice(name, "over_mode", self.over_mode, ("joint", "alternate"))
