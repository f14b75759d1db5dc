"""VCAMI: codes that tell images apart and labels that views share, under a mixture of Gaussians."""

from __future__ import annotations

import copy
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deepclust_ext import evaluate
from deepclust_ext.data.augment import Augmentation
from deepclust_ext.data.images import ImageData
from deepclust_ext.methods.base import Method
from deepclust_ext.methods.parameters import Optimizer, Precision, Schedule, documented, param, shared
from deepclust_ext.methods.vcami_mixture import start_mixture
from deepclust_ext.methods.vcami_terms import (
    category_information,
    derangement,
    divergence_from_uniform,
    dot_bound,
    jsd_bound,
    objective,
)
from deepclust_ext.nn.vcami import VCAMINet, build_vcami_net
from deepclust_ext.ops.gmm_kl_loss import gmm_kl_loss
from deepclust_ext.training.inference import all_features
from deepclust_ext.training.learner import Conclusion, Learner, Record, StepLoss
from deepclust_ext.training.optim import build_optimizer
from deepclust_ext.training.place import Place, scheduled
from deepclust_ext.training.seeds import derive_generator, derive_seed
from deepclust_ext.training.sharing import shared_kmeans


@documented
@dataclass(eq=False, repr=False)
class VCAMI(Method):
    r"""Variational deep embedding clustering by augmented mutual information maximization (VCAMI).

    An image x has a Gaussian of codes, z is drawn from it, and p(y|z) labels z; x' is another view of the image:

    .. math:: \min\; -\bigl[w L_{GMI}(x, z) + \lambda L_{LMI}(x, z) + \alpha I(y; y')\bigr]
              + \beta L_{GMM} + \gamma L_{REG}

    with the Jensen-Shannon bounds L_GMI of the whole map and L_LMI of its places, the divergence L_GMM of the codes
    from one Gaussian per class, per dimension, and L_REG of p(y|z) from uniform. The poster gives no networks,
    weights or sizes: these are ours. Configurations: `load_config("vcami", "small")`, "colour" and "paper".

    Parameters
    ----------
    {parameters}

    References
    ----------
    Ji, Sun, Hu and Yin, "Variational deep embedding clustering by augmented mutual information maximization", 2021.

    Examples
    --------
    >>> from deepclust_ext.methods import VCAMI, load_config
    >>> model = VCAMI(n_clusters=10, **load_config("vcami", "small"))
    >>> labels = model.fit_predict("mnist5k", run="runs/mnist5k")  # doctest: +SKIP
    """

    n_clusters: int = shared("n_clusters", 10)
    _: KW_ONLY
    global_weight: float = param(0.1, "w, of L_GMI; the poster has 1.", at_least=0)
    local_weight: float = param(0.1, "lambda, of L_LMI.", at_least=0)
    alpha: float = param(4.0, "Of L_CMI, the information that two views' labels share.", at_least=0)
    beta: float = param(0.05, "Of L_GMM, which is per dimension.", at_least=0)
    gamma: float = param(0.01, "Of L_REG. It asks for uncertain labels, against L_CMI: keep it small.", at_least=0)
    lamb: float = param(
        1.5, "Weight of the marginals' entropies in L_CMI; above 1 asks for more even clusters.", at_least=0
    )
    prior_start: float = param(
        0.25, "Share of the epochs before L_GMM and L_REG join; k-means of the codes then starts the mixture.",
        at_least=0, below=1,
    )  # fmt: skip
    prior_rise: float = param(0.25, "Share of the epochs over which their weights then rise.", at_least=0, below=1)
    views: Literal["augmented", "clean"] = param(
        "augmented",
        'Whether x is another augmented view, or the image itself as on the poster. "clean" lets L_CMI tell the two '
        "kinds of view apart in place of the images.",
    )
    score: Literal["dot", "concat"] = param(
        "dot", "L_LMI by dot products of all pairs in the batch, or by a network on a code joined to a place."
    )
    posterior: Literal["classifier", "vade"] = param(
        "classifier",
        "p(y|z) by a network, as on the poster, or by Bayes' rule in the mixture, as VaDE has it; L_CMI then "
        "joins with L_GMM.",
    )
    divergence: Literal["closed", "sample"] = param(
        "closed", "L_GMM in closed form given p(y|z), or at the drawn z as the poster writes it, which is noisier."
    )
    labels: Literal["posterior", "kmeans"] = param(
        "posterior", "Where labels come from: p(y|z) at the mean, or k-means of the means, as without L_CMI."
    )
    n_classifiers: int = param(1, "Classifiers, each with a mixture; `selection` chooses one. Poster: 1.", at_least=1)
    over_clusters: int | None = param(
        None, "Clusters of a twin of each classifier, which joins L_CMI only, as in IIC.", at_least=2
    )
    network: str | nn.Module = param(
        "auto",
        'A name of `build_network` with parallel blocks ("tiny8", "small28", "resnet18"; "auto" goes by size), or any '
        "module that returns a map (B, C, h, w) and a feature (B, d); a copy of it is trained.",
    )
    width: float = shared("width", 1.0)
    latent: int = param(64, "d, the codes' dimensions.", at_least=1)
    units: int = param(128, "Width of the discriminators.", at_least=1)
    hidden: int = param(200, "Width of the classifier's hidden layer; 0 makes it linear.", at_least=0)
    batch_size: int = shared("batch_size", 250, "Its other images are an image's negatives.")
    augmentation: Any = shared("augmentation", "auto")
    optimizer: Optimizer = shared("optimizer", "adam")
    lr: float = shared("lr", 2e-3)
    weight_decay: float = shared("weight_decay", 0.0)
    epochs: int = shared("epochs", 60)
    schedule: Schedule = shared("schedule", "cosine")
    warmup: float = shared("warmup", 0.1)
    selection: Literal["nmi", "mi"] = shared("selection", "mi")
    seed: int = shared("seed", 0)
    evaluate_every: int = shared("evaluate_every", 10)
    checkpoint_every: int = shared("checkpoint_every", 10)
    precision: Precision = shared("precision", "float32")
    device: Any = shared("device", "auto")

    def make_net(self, view_shape: tuple[int, int, int]) -> VCAMINet:
        """The networks; a module that was given is copied: the parameter stays untouched."""
        same = ("width", "latent", "units", "hidden", "score", "posterior", "n_classifiers", "over_clusters")
        options = {name: getattr(self, name) for name in same}
        options |= {"trunk_seed": derive_seed(self.seed, "trunk"), "seed": derive_seed(self.seed, "heads")}
        return build_vcami_net(copy.deepcopy(self.network), view_shape, self.n_clusters, **options)

    def check_parameters(self) -> None:
        """With what two parameters say together."""
        super().check_parameters()
        if self.posterior == "vade" and (self.n_classifiers > 1 or self.over_clusters is not None):
            raise ValueError(f"{self._name}: 'posterior' must be 'classifier' with several classifiers or twins")

    def make_learner(self, net: VCAMINet, images: ImageData, augmentation: Augmentation) -> VCAMILearner:
        """The method at work on the images."""
        return VCAMILearner(self, net, images, augmentation)


class VCAMILearner(Learner):
    """Algorithm 1 of the poster, with a start of the mixture and a rise of its weights."""

    def __init__(self, p: VCAMI, net: VCAMINet, images: ImageData, augmentation: Augmentation) -> None:
        optimizer = build_optimizer(p.optimizer, net.parameters(), lr=p.lr, weight_decay=p.weight_decay)
        super().__init__(net, optimizer, images, augmentation)
        self.p, self.selection = p, p.selection
        self.watched = (p.n_classifiers, p.n_clusters) if p.labels == "posterior" else None
        self.n_views = 2 if p.views == "augmented" else 1

    def rate(self, place: Place) -> float:
        """By the schedule's name."""
        return scheduled(self.p.schedule, place, warmup=self.p.warmup)

    def share(self, place: Place) -> float:
        """What the weights of L_GMM and L_REG are of their full ones."""
        since = place.number - round(self.p.prior_start * place.epochs) * place.n_steps
        rise = self.p.prior_rise * place.total
        return 0.0 if since < 0 else min(1.0, (since + 1) / max(1.0, rise))

    def begin_epoch(self, place: Place) -> Record:
        """Start the mixture, once; from zero means it would never part its classes."""
        start = round(self.p.prior_start * place.epochs)
        if place.epoch != start or (self.p.beta == 0 and self.p.posterior == "classifier"):
            return {}
        images, plain = self.images.images, self.p.views == "clean"
        return start_mixture(self.net, self.augmentation, images, plain=plain, seed=self.p.seed)

    def forward(self, views: Tensor, index: Tensor, place: Place) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ARG002
        """The maps (m, C, h, w) of the first views, and the means and log-variances (2m, d) of both."""
        if self.n_views == 1:
            with torch.no_grad():
                views = torch.cat([self.augmentation.plain(self.images.images[index]), views])
        both = self.net.encode(views)
        return both.maps[: len(index)], both.mean, both.log_variance

    def loss(self, outputs: tuple[Tensor, Tensor, Tensor], index: Tensor, place: Place) -> StepLoss:
        """The poster's objective."""
        p, share, n = self.p, self.share(place), len(index)
        maps, means, log_variances = outputs
        # From the default generator, which the loop seeds for every step.
        codes = means + (0.5 * log_variances).exp() * torch.randn_like(means)
        labels, twins = self.net.classify(codes)
        mean, log_variance, z = means[:n], log_variances[:n], codes[:n]
        first, second = labels.split(n, dim=1)
        others = derangement(n, derive_generator(p.seed, "negatives", place.epoch, place.step)).to(means.device)
        terms: dict[str, Tensor] = {}
        if p.global_weight:
            terms["gmi"] = jsd_bound(*self.net.global_score(maps, z, others))
        if p.local_weight and p.score == "dot":
            terms["lmi"] = dot_bound(*self.net.local_score(maps, z))
        elif p.local_weight:
            terms["lmi"] = jsd_bound(*self.net.local_score(maps, z, others))
        terms["cmi"] = category_information(first, second, lamb=p.lamb).mean()
        if twins is not None:
            terms["over"] = category_information(*twins.split(n, dim=1)).mean()
        sample = z if p.divergence == "sample" else None
        mixtures = zip(first, *self.net.mixtures(), strict=True)
        terms["gmm"] = torch.stack([gmm_kl_loss(mean, log_variance, *each, sample=sample) for each in mixtures]).mean()
        terms["reg"] = divergence_from_uniform(first)
        weights = {"gmi": p.global_weight, "lmi": p.local_weight, "gmm": p.beta * share, "reg": p.gamma * share}
        # A mixture that has not started would not label codes, but scatter them.
        weights["cmi"] = weights["over"] = p.alpha if p.posterior == "classifier" or share > 0 else 0.0
        logged = {name: term.detach() for name, term in terms.items()}
        return StepLoss(objective(terms, weights), logged, labels.detach().unflatten(1, (2, n)).transpose(0, 1))

    def conclude(self, place: Place) -> Conclusion:  # noqa: ARG002
        """Cluster the means: for the log, and for the labels if they are to come from there."""
        p, net = self.p, copy.deepcopy(self.net)
        means = all_features(net, self.augmentation, self.images.images)
        found = shared_kmeans(means, p.n_clusters, n_init=10, seed=derive_seed(p.seed, "means"))
        record: Record = {"kmeans_inertia": float(found.inertia) / len(means)}
        if self.images.labels is not None:
            pair = (found.labels.cpu().numpy(), self.images.labels.cpu().numpy())
            record["kmeans_scores"] = evaluate.scores(*pair)
        if p.labels == "kmeans":
            net.centroids.copy_(found.centroids)
            net.variance.copy_(found.inertia.double() / means.numel())
            return Conclusion(net, record=record, centroids=net.centroids.cpu())
        return Conclusion(self.net, record=record)
