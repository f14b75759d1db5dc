"""VCAMI at work: the terms of a step, and labels by the classifier or by k-means of the means."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from deepclust_ext import evaluate
from deepclust_ext.data.augment import Augmentation
from deepclust_ext.data.images import ImageData
from deepclust_ext.methods.vcami_mixture import start_mixture
from deepclust_ext.methods.vcami_terms import (
    category_information,
    derangement,
    divergence_from_uniform,
    dot_bound,
    jsd_bound,
    objective,
)
from deepclust_ext.nn.vcami import VCAMINet
from deepclust_ext.ops.gmm_kl_loss import gmm_kl_loss
from deepclust_ext.training.inference import all_features
from deepclust_ext.training.learner import Conclusion, Learner, Record, StepLoss
from deepclust_ext.training.optim import build_optimizer
from deepclust_ext.training.place import Place, scheduled
from deepclust_ext.training.seeds import derive_generator, derive_seed
from deepclust_ext.training.sharing import shared_kmeans


class VCAMILearner(Learner):
    """Algorithm 1 of the poster, with a start of the mixture and a rise of its weights."""

    # p is a VCAMI, which imports this file.
    def __init__(self, p: Any, net: VCAMINet, images: ImageData, augmentation: Augmentation) -> None:
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
        held = z if p.bounds == "within" else codes[n:]
        if p.global_weight:
            terms["gmi"] = jsd_bound(*self.net.global_score(maps, held, others))
        if p.local_weight and p.score == "dot":
            terms["lmi"] = dot_bound(*self.net.local_score(maps, held))
        elif p.local_weight:
            terms["lmi"] = jsd_bound(*self.net.local_score(maps, held, others))
        if p.alpha:
            terms["cmi"] = category_information(first, second, lamb=p.lamb).mean()
        if p.alpha and twins is not None:
            terms["over"] = category_information(*twins.split(n, dim=1)).mean()
        if p.beta:
            sample = z if p.divergence == "sample" else None
            mixtures = zip(first, *self.net.mixtures(), strict=True)
            divergences = [gmm_kl_loss(mean, log_variance, *each, sample=sample) for each in mixtures]
            terms["gmm"] = torch.stack(divergences).mean()
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
