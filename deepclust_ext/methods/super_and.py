"""Super-AND: tell every image from all others but its neighbours; with AND and instance discrimination as its cases."""

from __future__ import annotations

import copy
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from deepclust_ext.data.augment import Augmentation
from deepclust_ext.data.images import ImageData
from deepclust_ext.methods.base import Method
from deepclust_ext.methods.parameters import Optimizer, Precision, documented, param, shared
from deepclust_ext.nn import EmbeddingNet, MemoryBank, build_embedding_net
from deepclust_ext.training.discovery import bank_figures, discover
from deepclust_ext.training.inference import all_features
from deepclust_ext.training.learner import Conclusion, Learner, Record, State, StepLoss
from deepclust_ext.training.optim import build_optimizer
from deepclust_ext.training.place import Place, scheduled, steps
from deepclust_ext.training.seeds import derive_seed
from deepclust_ext.training.sharing import shared_affinity_graph, shared_kmeans


@documented
@dataclass(eq=False, repr=False)
class SuperAND(Method):
    r"""Super-AND, anchor neighbourhood discovery (AND) and instance discrimination: an embedding by a memory bank.

    With :math:`p_i = \mathrm{softmax}(M v_i / \tau)` over the bank's rows M, of a view of image i embedded as
    :math:`v_i`, and :math:`\tilde p_i` the same without row i, a step lowers the mean over both views of

    .. math:: -\ln \sum_{j \in \{i\} \cup N(i)} p_i^j + w(t)\, H(\tilde p_i) + L_{aug}

    L_aug is that of `augmentation_loss`. In round r of 0..R-1 the share r / (R - 1) of the images, those of lowest
    entropy of the bank's own :math:`p_i`, have their nearest rows as N(i); the others have none. w(t) grows by
    `ue_weight` after each 40 % of a round. The bank, the network and the optimizer's momentum outlive a round; the
    learning rate and w(t) start anew. `labels_` are clusters of the embeddings, which `transform` gives.

    AND is `sobel=False, ue_weight=0, augmentation_loss=False`, instance discrimination also `n_neighbors=0`. Defaults
    are the paper's for CIFAR-10. Configurations: `load_config("super-and", "small")`, and "paper-cifar10".

    Parameters
    ----------
    {parameters}

    References
    ----------
    "Super-AND: A Holistic Approach to Unsupervised Embedding Learning", arXiv 2002.12158. Huang et al., "Unsupervised
    Deep Learning by Neighbourhood Discovery", ICML 2019. Wu et al., "Unsupervised Feature Learning via Non-Parametric
    Instance Discrimination", CVPR 2018.

    Examples
    --------
    >>> from deepclust_ext.methods import SuperAND, load_config
    >>> model = SuperAND(n_clusters=10, **load_config("super-and", "small"))
    >>> labels = model.fit_predict("mnist5k", run="runs/mnist5k")  # doctest: +SKIP
    """

    standardises: ClassVar[bool] = True

    n_clusters: int = shared("n_clusters", 10, "They play no part in the training.")
    _: KW_ONLY
    n_neighbors: int = param(1, "Neighbours of an anchor; 0 is instance discrimination.", at_least=0)
    ue_weight: float = param(0.2, "Steps in which the unification entropy's weight w(t) grows; 0: without.", at_least=0)
    augmentation_loss: bool = param(True, "Whether an image's two views are to be alike to all images alike.")
    sobel: bool = param(True, "A second tower, for the images' edges.")
    network: str | nn.Module = param(
        "resnet18",
        "A name of `build_network`, for each tower; or any module, as the only tower: a copy of it is trained.",
    )
    width: float = shared("width", 1.0)
    dim: int = param(128, "Of the embedding.", at_least=1)
    initialisation: Literal["random", "instance", "instance-ue-aug"] = param(
        "random",
        "What comes before round 0: nothing, or a round of instance discrimination, alone or with the losses of "
        "`ue_weight` and `augmentation_loss`. The paper does not say how long; a round is ours.",
    )
    rounds: int = param(5, "R; the first is without neighbours.", at_least=1)
    round_epochs: int = param(200, "Passes over the images in a round.", at_least=1)
    batch_size: int = shared("batch_size", 128, "A step has two views of each.")
    temperature: float = param(0.1, "tau, of all losses.", above=0)
    bank_momentum: float = param(0.5, "What a step leaves of an image's row of the bank.", at_least=0, below=1)
    augmentation: Any = shared("augmentation", "natural32")
    optimizer: Optimizer = shared("optimizer", "sgd", "With Nesterov's momentum of 0.9.")
    lr: float = shared("lr", 0.03)
    weight_decay: float = shared("weight_decay", 5e-4)
    schedule: Literal["steps", "cosine", "constant"] = param(
        "steps", 'The learning rate over a round; "steps" divides it by 10 at 60 and at 80 %.'
    )
    clusterer: Literal["kmeans", "affinity"] = param(
        "kmeans", "Of the embeddings in the end: balls, or groups of a graph of neighbours, which are what is trained."
    )
    seed: int = shared("seed", 0)
    checkpoint_every: int = shared("checkpoint_every", 5, "Ours.")
    precision: Precision = shared("precision", "float32")
    device: Any = shared("device", "auto")

    @property
    def epochs(self) -> int:  # type: ignore[override]
        """Of all rounds together."""
        return (self.rounds + (self.initialisation != "random")) * self.round_epochs

    def make_net(self, view_shape: tuple[int, int, int]) -> EmbeddingNet:
        """Two towers or one; a module that was given is copied: the parameter stays untouched."""
        network, seed = copy.deepcopy(self.network), derive_seed(self.seed, "towers")
        return build_embedding_net(
            network, view_shape, self.n_clusters, dim=self.dim, width=self.width, sobel=self.sobel, seed=seed
        )

    def make_learner(self, net: EmbeddingNet, images: ImageData, augmentation: Augmentation) -> SuperANDLearner:
        """The method at work on the images."""
        return SuperANDLearner(self, net, images, augmentation)

    def check_data(self, images: ImageData) -> None:
        """With what neighbours need."""
        super().check_data(images)
        if self.n_neighbors >= len(images):
            raise ValueError(
                f"{self._name}: 'n_neighbors' must be below the number of images ({len(images)}), "
                f"got {self.n_neighbors}"
            )


class SuperANDLearner(Learner):
    """Finds neighbours where a round begins; moves the bank after each step, to what the step has embedded."""

    n_views = 2

    def __init__(self, p: SuperAND, net: EmbeddingNet, images: ImageData, augmentation: Augmentation) -> None:
        optimizer = build_optimizer(p.optimizer, net.parameters(), lr=p.lr, weight_decay=p.weight_decay)
        super().__init__(net, optimizer, images, augmentation)
        self.p = p
        net.standardise(images.images)
        n, seed, gram = len(images), derive_seed(p.seed, "bank"), p.augmentation_loss
        memory = MemoryBank(n, net.dim, momentum=p.bank_momentum, temperature=p.temperature, seed=seed, gram=gram)
        self.memory = memory.to(images.images.device)
        # (N, n_neighbors), -1 where there is none.
        self.neighbors: Tensor | None = None

    def round_of(self, place: Place) -> tuple[int, int]:
        """The round, -1 for that of the initialisation, and the epoch within it."""
        number, inside = divmod(place.epoch, self.p.round_epochs)
        return number - (self.p.initialisation != "random"), inside

    def rate(self, place: Place) -> float:
        """By the schedule's name, anew in every round."""
        place = place.in_round(self.p.round_epochs)
        if self.p.schedule != "steps":
            return scheduled(self.p.schedule, place)
        return steps(place.epoch, (-(-3 * place.epochs // 5), -(-4 * place.epochs // 5)))  # 120 and 160 of 200

    def weights(self, place: Place) -> tuple[float, bool]:
        """Those of the unification entropy, w(t), and of the augmentation loss, which is there or not."""
        number, inside = self.round_of(place)
        if number < 0 and self.p.initialisation == "instance":
            return 0.0, False
        # One step more at 80 and at 160 of 200 epochs.
        return self.p.ue_weight * (5 * inside // (2 * self.p.round_epochs)), self.p.augmentation_loss

    def begin_epoch(self, place: Place) -> Record:
        """Where a round begins, find neighbours in the bank, and choose the images that get them."""
        number, inside = self.round_of(place)
        if inside > 0 or number < 1 or self.p.n_neighbors == 0:
            return {"round": number}
        n_anchors = len(self.memory.bank) * number // (self.p.rounds - 1)
        found = discover(self.memory.bank, self.p.n_neighbors, n_anchors, temperature=self.p.temperature)
        self.neighbors = found.neighbors
        return {"round": number, **found.figures(self.images.labels)}

    def forward(self, views: Tensor, index: Tensor, place: Place) -> tuple[Tensor, Tensor, Tensor | None]:
        """The embeddings (2m, d); each one's negative log-likelihood (2m,) and, where it has a weight, its entropy."""
        embedded, both = self.net.features(views), index.repeat(2)
        neighbors = None if self.neighbors is None else self.neighbors[both]
        if self.weights(place)[0] > 0:
            return embedded, *self.memory.nll_entropy(embedded, both, neighbors)
        return embedded, self.memory.nll(embedded, both, neighbors), None

    def loss(self, outputs: tuple[Tensor, Tensor, Tensor | None], index: Tensor, place: Place) -> StepLoss:  # noqa: ARG002
        """The paper's equation 6, as means over both views."""
        weight, augmentation_loss = self.weights(place)
        embedded, nll, entropy = outputs
        terms = {"and": nll.mean()}
        if entropy is not None:
            terms["ue"] = entropy.mean()
        if augmentation_loss:
            terms["aug"] = self.memory.augmentation_loss(*embedded.chunk(2))
        loss = torch.stack([term * (weight if name == "ue" else 1.0) for name, term in terms.items()]).sum()
        self._embedded = embedded.detach()  # (2B, d), until the step is over
        return StepLoss(loss, {name: term.detach() for name, term in terms.items()})

    def after_step(self, index: Tensor, place: Place) -> None:  # noqa: ARG002
        """Move the rows to the first views, then to the second."""
        self.memory.update(index.repeat(2), self._embedded)

    def end_epoch(self, place: Place) -> Record:
        """Where a round ends, the bank's entropy and, where classes are known, what its neighbours are worth."""
        if self.round_of(place)[1] < self.p.round_epochs - 1:
            return {}
        return bank_figures(self.memory.bank, self.images.labels, temperature=self.p.temperature)

    def conclude(self, place: Place) -> Conclusion:  # noqa: ARG002
        """Cluster the embeddings of the plain images."""
        net, seed = copy.deepcopy(self.net), derive_seed(self.p.seed, "kmeans")
        features = all_features(net, self.augmentation, self.images.images)
        result = net.space.fit(features, max_iter=100, n_init=10, seed=seed, search=shared_kmeans)
        labels = net.space.merge(features, shared_affinity_graph) if self.p.clusterer == "affinity" else None
        figures = bank_figures(features, self.images.labels, temperature=self.p.temperature)
        record = {"inertia": float(result.inertia), **figures}
        return Conclusion(net, labels=labels, record=record, centroids=net.space.centroids.cpu())

    def state(self) -> State:
        """The bank, and the neighbours of the round."""
        return {"memory": self.memory.state_dict(), "neighbors": self.neighbors}

    def load(self, state: State) -> None:
        """Take them over."""
        self.memory.load_state_dict(state["memory"])
        neighbors = state["neighbors"]
        self.neighbors = None if neighbors is None else neighbors.to(self.memory.bank.device)
