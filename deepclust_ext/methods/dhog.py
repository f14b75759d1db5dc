"""DHOG: heads from simple to complex, alike over augmentations and unlike the heads before."""

from __future__ import annotations

import copy
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

import deepclust_ext
from deepclust_ext.data.augment import Augmentation
from deepclust_ext.data.rows import NeighbourViews
from deepclust_ext.methods.base import Method
from deepclust_ext.methods.parameters import Optimizer, Schedule, documented, param, shared
from deepclust_ext.nn import ClusterNet, RowTrunk, build_network
from deepclust_ext.training import Learner, Place, StepLoss, derive_seed, scheduled
from deepclust_ext.training.optim import build_optimizer


@documented
@dataclass(eq=False, repr=False)
class DHOG(Method):
    r"""Deep hierarchical object grouping (DHOG), and invariant information clustering (IIC) as its case without a push.

    With :math:`z_i` the probabilities of head i, MI their mutual information pooled over augmentations and sg the
    stop-gradient,

    .. math:: \max_\theta \frac1k \sum_{i=1}^{k} MI(z_i, z_i')
              - \alpha \sum_{i=2}^{k} \frac1i \sum_{j<i} MI(z_i, \mathrm{sg}(z_j))

    The head that `labels_` come from is chosen without labels, by how its labels of two views agree. Defaults
    are the paper's where it gives a value; those it does not give are marked "ours". Configurations for other
    uses: `load_config("dhog", "small")`, and "iic", "paper-cifar10".

    Parameters
    ----------
    {parameters}

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

    takes: ClassVar[tuple[str, ...]] = ("images", "embeddings")

    n_clusters: int = shared("n_clusters", 10, "Every head has as many.")
    _: KW_ONLY
    alpha: float = param(
        0.05,
        "Weight of the push; 0 is the paper's ablation, IIC with DHOG's augmentation, network and heads.",
        at_least=0,
    )
    pooling: Literal["pooled", "mean"] = param(
        "pooled",
        "One joint over all pairs of augmentations, as in the paper's equation 1, or the mean of one for each pair.",
    )
    push_norm: Literal["index", "count"] = param(
        "index", "Divide head i's push by i, as equation 4 is printed, or by its number of comparisons, i - 1."
    )
    push_trunk: Literal["shared", "detach"] = param(
        "shared",
        '"detach" lets the push move the heads\' own layers only, not the network below them. The paper does not say; '
        '"shared" is ours.',
    )
    lamb: float = param(
        1.0,
        "Weight of the marginals' entropies in the main heads' pull; above 1 asks for more even clusters.",
        at_least=0,
    )
    # Mutual information is between views: one is not enough.
    n_augmentations: int = shared("n_augmentations", 4, at_least=2)
    batch_size: int = shared("batch_size", 220, "A step has A times as many views.")
    network: str | nn.Module = param(
        "resnet18",
        "A name of `build_network`, or any module that returns a list of features; a copy of it is trained. Embeddings "
        'have "rows": a projection that is not trained, and a residual block more for each head after the first.',
    )
    width: float = shared("width", 1.0, "The paper doubles them for STL-10.")
    n_heads: int | None = param(
        8,
        "Features of a named network, each with a head: 3 from shared blocks and 5 from parallel last blocks. None "
        "takes the network's own number. A module brings its own.",
        at_least=1,
    )
    hidden: int = param(200, "Width of each head's hidden layer; 0 makes the heads linear.", at_least=0)
    n_sub_heads: int = param(
        1,
        "Output layers on each head's hidden layer; IIC has 5. Sub-head s is pushed from the sub-heads s of earlier "
        "heads only: those of one feature have no order from simple to complex.",
        at_least=1,
    )
    over_clusters: int | None = param(
        None,
        "Clusters of an over-clustering twin of each head, which joins the pull only; 70 for STL-10.",
        at_least=2,
    )
    over_mode: Literal["joint", "alternate"] = param(
        "joint",
        "Add the twins' pull to the loss (ours; the paper gives no weight), or alternate as IIC does: passes over the "
        "images for the twins, then passes for the main heads.",
    )
    over_passes: int = param(1, 'Passes of an epoch that train the twins when `over_mode` is "alternate".', at_least=1)
    main_passes: int = param(
        2, 'Passes of an epoch that train the main heads when `over_mode` is "alternate".', at_least=1
    )
    augmentation: Any = shared(
        "augmentation",
        "fast-autoaugment",
        "All views of an image come from it: a plain view beside an augmented one has a useless optimum.",
    )
    n_components: int | None = param(
        None,
        "Of embeddings, dimensions after the PCA-whitening in front of the network; None standardises each dimension.",
        at_least=1,
    )
    n_neighbors: int | None = param(
        None,
        'Of embeddings whose `augmentation` is "neighbours", k of the nearest from which views are drawn; None is 20.',
        at_least=1,
    )
    optimizer: Optimizer = shared("optimizer", "adam", "Ours.")
    lr: float = shared("lr", 1e-3, "Ours.")
    weight_decay: float = shared("weight_decay", 0.0, "Ours.")
    epochs: int = shared("epochs", 1000, 'With `over_mode` "alternate", rounds of passes.')
    schedule: Schedule = shared("schedule", "cosine")
    warmup: float = shared("warmup", 0.0)
    selection: Literal["nmi", "mi"] = shared("selection", "nmi")
    seed: int = shared("seed", 0)
    evaluate_every: int = shared("evaluate_every", 10)
    checkpoint_every: int = shared("checkpoint_every", 10)
    device: Any = shared("device", "auto")

    def check_data(self, images: Any) -> None:
        """With what PCA needs."""
        super().check_data(images)
        if images.kind == "embeddings":
            self.check_components(self.n_components, images)

    def make_augmentation(self, image_shape: Any) -> Augmentation:
        """With the number of neighbours, where views are neighbours."""
        found = super().make_augmentation(image_shape)
        if self.n_neighbors is not None and isinstance(found, NeighbourViews):
            found.k = self.n_neighbors
        return found

    def make_net(self, view_shape: Any) -> ClusterNet:
        """A trunk with its heads; a module that was given is copied: the parameter stays untouched."""
        options: dict[str, Any] = {"width": self.width, "seed": derive_seed(self.seed, "trunk")}
        if self.n_heads is not None and isinstance(self.network, str):
            options["n_heads"] = self.n_heads
        if self.n_components is not None and len(view_shape) == 1:
            options["n_components"] = self.n_components
        trunk = build_network(copy.deepcopy(self.network), image_shape=view_shape, **options)
        return ClusterNet(
            trunk,
            view_shape,
            self.n_clusters,
            n_sub_heads=self.n_sub_heads,
            over_clusters=self.over_clusters,
            hidden=self.hidden,
            seed=derive_seed(self.seed, "heads"),
        )

    def make_learner(self, net: ClusterNet, images: Any, augmentation: Augmentation) -> DHOGLearner:
        """The method at work on the images, or on embeddings, whose projection is found first."""
        if isinstance(net.trunk, RowTrunk):
            net.trunk.fit(images.values)
        return DHOGLearner(self, net, images, augmentation)


class DHOGLearner(Learner):
    """Pulls the views of each image together, pushes each head from those before it."""

    def __init__(self, p: DHOG, net: ClusterNet, images: Any, augmentation: Augmentation) -> None:
        optimizer = build_optimizer(p.optimizer, net.parameters(), lr=p.lr, weight_decay=p.weight_decay)
        super().__init__(net, optimizer, images, augmentation)
        self.p, self.n_views, self.selection = p, p.n_augmentations, p.selection
        self.watched = (net.n_heads, p.n_clusters)
        alternate = p.over_clusters is not None and p.over_mode == "alternate"
        self.passes = ("over",) * p.over_passes + ("main",) * p.main_passes if alternate else ("both",)

    def rate(self, place: Place) -> float:
        """By the schedule's name."""
        return scheduled(self.p.schedule, place, warmup=self.p.warmup)

    def forward(self, views: Tensor, index: Tensor, place: Place) -> tuple[Tensor | None, ...]:  # noqa: ARG002
        """The heads' probabilities, each (A * m, H, K): of the main heads, the twins, and from a cut-off trunk."""
        features = self.net.features(views)
        main, over = self.net.heads(features, place.stage)
        cut = None
        if main is not None and self.p.push_trunk == "detach" and self.p.alpha > 0:
            # Of features the gradient does not pass: the push moves the heads' own layers alone.
            cut, _ = self.net.heads([feature.detach() for feature in features], "main")
        return tuple(None if each is None else each.transpose(0, 1) for each in (main, over, cut))

    def loss(self, outputs: tuple[Tensor | None, ...], index: Tensor, place: Place) -> StepLoss:  # noqa: ARG002
        """The paper's equation 4, and the twins' pull."""
        main, over, cut = (None if each is None else each.transpose(0, 1) for each in outputs)
        loss: Tensor | float = 0.0
        terms: dict[str, Tensor] = {}
        if main is not None:
            loss, terms["pull"], terms["push"] = self._ladders(main, alpha=self.p.alpha if cut is None else 0.0)
            if cut is not None:
                pushed, _, terms["push"] = self._ladders(cut, alpha=self.p.alpha)
                loss = loss + pushed - self._ladders(cut, alpha=0.0)[0]
        if over is not None:
            over_loss, terms["over_pull"], _ = self._ladders(over, alpha=0.0, lamb=1.0)
            loss = loss + over_loss
        return StepLoss(torch.as_tensor(loss), terms, None if main is None else self._by_view(main))

    def _ladders(
        self, probabilities: Tensor, *, alpha: float, lamb: float | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, and each head's pull and push, of (H, A * n, K); sub-head s is pushed from earlier sub-heads s."""
        p = self.p
        if probabilities.is_cuda and deepclust_ext.build_info()["cuda_library"] is None:
            # Without its CUDA kernel the loss is taken on the CPU: some hundred kB a step.
            probabilities = probabilities.cpu()
        lamb = p.lamb if lamb is None else lamb
        ladders = self._by_view(probabilities).unflatten(1, (-1, p.n_sub_heads)).unbind(2)
        found = [
            deepclust_ext.dhog_loss(z, alpha=alpha, pooling=p.pooling, push_norm=p.push_norm, lamb=lamb)
            for z in ladders
        ]
        pull = torch.stack([part.pull for part in found], dim=1).flatten()
        push = torch.stack([part.push.sum(1) for part in found], dim=1).flatten()
        return torch.stack([part.loss for part in found]).mean(), pull, push

    def _by_view(self, probabilities: Tensor) -> Tensor:
        """Split (H, A * n, K) into (A, H, n, K)."""
        heads, _, clusters = probabilities.shape
        return probabilities.view(heads, self.n_views, -1, clusters).transpose(0, 1)
