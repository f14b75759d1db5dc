"""DHOG: heads from simple to complex, alike over augmentations and unlike the heads before."""

from __future__ import annotations

import copy
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

from torch import nn

from deepclust_ext.data.augment import Augmentation
from deepclust_ext.data.rows import NeighbourViews
from deepclust_ext.methods.base import Method
from deepclust_ext.methods.dhog_learner import DHOGLearner
from deepclust_ext.methods.parameters import Optimizer, Precision, Schedule, documented, param, shared
from deepclust_ext.nn import ClusterNet, RowTrunk, SeparateTrunks, build_network
from deepclust_ext.training import derive_seed


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
    trunks: Literal["shared", "own"] = param(
        "shared",
        'The paper\'s network branches late; with "own" (ours) each head has a named network to itself, so that a head '
        "that is pushed need not look at images as the heads before it do.",
    )
    hidden: int = param(200, "Width of each head's hidden layer; 0 makes the heads linear.", at_least=0)
    head_gain: float = param(
        1.0,
        "Multiplies the initial weights of the heads' outputs. Near-uniform outputs, with which 1 begins, can hold a "
        "head that is pushed where it is: what a head gains by a new grouping grows with the fourth power of its "
        "outputs' spread, what the push costs with the second. Ours.",
        above=0,
    )
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
    precision: Precision = shared("precision", "float32")
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
        trunk = self._separate_trunks(view_shape) if self.trunks == "own" else self._trunk(view_shape, self.n_heads)
        return ClusterNet(
            trunk,
            view_shape,
            self.n_clusters,
            n_sub_heads=self.n_sub_heads,
            over_clusters=self.over_clusters,
            hidden=self.hidden,
            gain=self.head_gain,
            seed=derive_seed(self.seed, "heads"),
        )

    def _trunk(self, view_shape: Any, n_heads: int | None, *position: int) -> nn.Module:
        """The network by its name, or a copy of the one that was given; `position` is that of one of several."""
        options: dict[str, Any] = {"width": self.width, "seed": derive_seed(self.seed, "trunk", *position)}
        if n_heads is not None and isinstance(self.network, str):
            options["n_heads"] = n_heads
        if self.n_components is not None and len(view_shape) == 1:
            options["n_components"] = self.n_components
        return build_network(copy.deepcopy(self.network), image_shape=view_shape, **options)

    def _separate_trunks(self, view_shape: Any) -> SeparateTrunks:
        """A network for each head."""
        if self.n_heads is None or not isinstance(self.network, str) or len(view_shape) == 1:
            raise ValueError(
                f"{self._name}: 'trunks' must be 'shared' unless 'network' is the name of a network of images and "
                f"'n_heads' a number, got 'own' with {self.network!r} and n_heads={self.n_heads}"
            )
        return SeparateTrunks(self._trunk(view_shape, 1, head) for head in range(self.n_heads))

    def make_learner(self, net: ClusterNet, images: Any, augmentation: Augmentation) -> DHOGLearner:
        """The method at work on the images, or on embeddings, whose projection is found first."""
        if isinstance(net.trunk, RowTrunk):
            net.trunk.fit(images.values)
        return DHOGLearner(self, net, images, augmentation)
