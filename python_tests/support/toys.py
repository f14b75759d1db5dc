"""Three toy methods, written from `training.learner` alone: each asks of the loop what a method to come will ask.

They learn little. What counts is what they keep beside the weights, when they change it, and when they end.
"""

from __future__ import annotations

import copy
from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

import deepclust_ext
from deepclust_ext.methods import Method
from deepclust_ext.methods.parameters import documented, param, shared
from deepclust_ext.training import Conclusion, Learner, StepLoss, derive_generator, derive_seed, scheduled
from deepclust_ext.training.inference import all_features
from deepclust_ext.training.visits import uniform_over_clusters
from deepclust_ext.training.watch import occupancy_figures


class NearestNet(nn.Module):
    """An embedding on the sphere, and clusters by the nearest of centroids that are put in when training has ended."""

    dim = 6

    def __init__(self, view_shape, n_clusters, seed):
        super().__init__()
        # Methods build networks where torch's random state is put back afterwards.
        torch.default_generator.manual_seed(seed)
        n_pixels = view_shape[0] * view_shape[1] * view_shape[2]
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(n_pixels, 12), nn.ReLU(), nn.Dropout(0.1))
        self.last = nn.Linear(12, self.dim)
        self.register_buffer("centroids", torch.zeros(n_clusters, self.dim))

    def features(self, views):
        return functional.normalize(self.last(self.layers(views)), dim=1)

    def outputs(self, views):
        features = self.features(views)
        return (8 * features @ self.centroids.T).softmax(1)[None], features


class ToyMethod(Method):
    """What the toys have in common."""

    learner: type[Learner]

    def make_net(self, view_shape):
        return NearestNet(view_shape, self.n_clusters, derive_seed(self.seed, "net"))

    def make_learner(self, net, images, augmentation):
        return self.learner(self, net, images, augmentation)


# Super-AND: a bank that moves after each step, rounds, and no probabilities


class ToyBankLearner(Learner):
    """Tells every image, and its neighbour, from all others, by a bank of what the images were embedded to."""

    def __init__(self, p, net, images, augmentation):
        super().__init__(net, torch.optim.SGD(net.parameters(), lr=p.lr, momentum=0.9), images, augmentation)
        self.p = p
        drawn = torch.randn(len(images), net.dim, generator=derive_generator(p.seed, "bank"))
        self.bank, self.neighbours = functional.normalize(drawn, dim=1).to(images.images.device), None

    def rate(self, place):
        return scheduled("cosine", place.in_round(self.p.round_epochs))

    def begin_epoch(self, place):
        if place.epoch % self.p.round_epochs == 0:
            self.neighbours = deepclust_ext.knn(self.bank, 1).indices[:, 0]
        return {"round": place.epoch // self.p.round_epochs}

    def loss(self, views, index, place):
        self._embedded = self.net.features(views)
        logits = self._embedded @ self.bank.T / self.p.tau
        own, near = (functional.cross_entropy(logits, target) for target in (index, self.neighbours[index]))
        return StepLoss(own + near, {"own": own.detach(), "near": near.detach()})

    def after_step(self, index, place):
        # In place: before the optimizer's step it would spoil what the gradient is taken from.
        self.bank[index] = functional.normalize(self.bank[index].lerp(self._embedded, self.p.pace), dim=1)

    def conclude(self, place):
        net, found = copy.deepcopy(self.net), deepclust_ext.kmeans(self.bank, self.p.n_clusters, seed=self.p.seed)
        net.centroids.copy_(found.centroids)
        return Conclusion(net, labels=found.labels, record={"inertia": float(found.inertia)})

    def state(self):
        return {"bank": self.bank, "neighbours": self.neighbours}

    def load(self, state):
        self.bank, self.neighbours = state["bank"], state["neighbours"]


@documented
@dataclass(eq=False, repr=False)
class ToyBank(ToyMethod):
    """A toy Super-AND.

    Parameters
    ----------
    {parameters}
    """

    learner = ToyBankLearner
    n_clusters: int = shared("n_clusters", 4)
    _: KW_ONLY
    tau: float = param(0.2, "Temperature of the bank's logits.", above=0)
    pace: float = param(0.5, "How far a step moves an image's row of the bank.", above=0, below=1)
    round_epochs: int = param(2, "Epochs of a round.", at_least=1)
    batch_size: int = shared("batch_size", 12)
    augmentation: Any = shared("augmentation", "flip")
    lr: float = shared("lr", 0.05)
    epochs: int = shared("epochs", 4)
    seed: int = shared("seed", 0)
    checkpoint_every: int = shared("checkpoint_every", 3)
    device: Any = shared("device", "cpu")


# JULE: clusters that merge, and an end that the data decide


class ToyMergeLearner(Learner):
    """Pulls the images of a cluster together, with half the clusters in each epoch."""

    def __init__(self, p, net, images, augmentation):
        super().__init__(net, torch.optim.Adam(net.parameters(), lr=p.lr), images, augmentation)
        self.p, self.labels, self.centroids = p, None, None

    def begin_epoch(self, place):
        features = self._features(self.net)
        n_clusters = len(features) // 2 if self.labels is None else max(self.p.n_clusters, len(self.centroids) // 2)
        self.labels = self._merged(features, n_clusters)
        self.centroids = means_of(features, self.labels)
        self.watched = (1, len(self.centroids))
        return {"clusters": len(self.centroids)}

    def visits(self, place, generator):
        return uniform_over_clusters(self.labels, generator)

    def loss(self, views, index, place):
        logits = 8 * self.net.features(views) @ self.centroids.T
        loss = functional.cross_entropy(logits, self.labels[index.cpu()].to(logits.device))
        return StepLoss(loss, probabilities=logits.detach().softmax(1)[None, None])

    def done(self, place):
        merged = self.watched is not None and self.watched[1] <= self.p.n_clusters
        return merged or super().done(place)

    def conclude(self, place):
        net = copy.deepcopy(self.net)
        features = self._features(net)
        # Where the planned epochs were too few, what is left to merge is merged at once.
        labels = self.labels if len(self.centroids) <= self.p.n_clusters else self._merged(features, self.p.n_clusters)
        means = means_of(features, labels)
        net.centroids[: len(means)] = means
        return Conclusion(net, labels=labels, record={"clusters": len(means)})

    def state(self):
        return {"labels": self.labels, "centroids": self.centroids}

    def load(self, state):
        self.labels, self.centroids = state["labels"], state["centroids"]
        self.watched = None if self.labels is None else (1, len(self.centroids))

    def _features(self, net):
        return all_features(net, self.augmentation, self.images.images)

    def _merged(self, features, n_clusters):
        points = features if self.labels is None else means_of(features, self.labels)
        labels = deepclust_ext.kmeans(points, n_clusters, seed=self.p.seed).labels.cpu()
        labels = labels if self.labels is None else labels[self.labels]
        # Numbered anew without gaps, as k-means may leave a cluster empty.
        return labels.unique(return_inverse=True)[1]


def means_of(features, labels):
    members = functional.one_hot(labels).to(features)
    return functional.normalize(members.T @ features, dim=1)


@documented
@dataclass(eq=False, repr=False)
class ToyMerge(ToyMethod):
    """A toy JULE.

    Parameters
    ----------
    {parameters}
    """

    learner = ToyMergeLearner
    n_clusters: int = shared("n_clusters", 4)
    _: KW_ONLY
    batch_size: int = shared("batch_size", 16)
    augmentation: Any = shared("augmentation", "flip")
    lr: float = shared("lr", 0.01)
    epochs: int = shared("epochs", 9, "The most: it ends when the clusters are merged.")
    seed: int = shared("seed", 0)
    checkpoint_every: int = shared("checkpoint_every", 3)
    device: Any = shared("device", "cpu")


# VCAMI: two networks, a prior that k-means starts and training moves, and several terms


class PriorNet(nn.Module):
    """Encoder and decoder, and a mixture of Gaussians over what is between them."""

    def __init__(self, view_shape, n_clusters, seed):
        super().__init__()
        torch.default_generator.manual_seed(seed)
        n_pixels, self.dim = view_shape[0] * view_shape[1] * view_shape[2], 3
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(n_pixels, 16), nn.Tanh(), nn.Linear(16, 2 * self.dim))
        self.decoder = nn.Sequential(nn.Linear(self.dim, 16), nn.Tanh(), nn.Linear(16, n_pixels))
        self.means = nn.Parameter(torch.zeros(n_clusters, self.dim))

    def features(self, views):
        return self.encoder(views)[:, : self.dim]

    def log_joint(self, codes):
        return -4 * (codes[:, None] - self.means).square().sum(2)

    def outputs(self, views):
        codes = self.features(views)
        return self.log_joint(codes).softmax(1)[None], codes


class ToyPriorLearner(Learner):
    """Rebuilds the images from codes that are near a mixture, and alike in two views."""

    n_views = 2

    def __init__(self, p, net, images, augmentation):
        super().__init__(net, torch.optim.AdamW(net.parameters(), lr=p.lr), images, augmentation)
        self.p, self.watched = p, (1, p.n_clusters)

    def begin_epoch(self, place):
        if place.epoch > 0:
            return {}
        codes = all_features(self.net, self.augmentation, self.images.images)
        found = deepclust_ext.kmeans(codes, self.p.n_clusters, seed=self.p.seed)
        self.net.means.data.copy_(found.centroids)
        return occupancy_figures(torch.bincount(found.labels, minlength=self.p.n_clusters)[None])

    def loss(self, views, index, place):
        means, log_scales = self.net.encoder(views).chunk(2, dim=1)
        log_scales = log_scales - 2
        # From the default generator, which the loop seeds for every step.
        codes = means + log_scales.exp() * torch.randn_like(means)
        joint = self.net.log_joint(codes)
        two = joint.softmax(1).unflatten(0, (2, -1))
        terms = {
            "rebuilt": (self.net.decoder(codes) - views.flatten(1)).square().sum(1).mean(),
            "prior": (-log_scales.sum(1) - joint.logsumexp(1)).mean(),
            "alike": -(two[0] * two[1]).sum(1).mean(),
        }
        loss = terms["rebuilt"] + self.p.beta * terms["prior"] + terms["alike"]
        return StepLoss(loss, {name: term.detach() for name, term in terms.items()}, two.detach()[:, None])


@documented
@dataclass(eq=False, repr=False)
class ToyPrior(ToyMethod):
    """A toy VCAMI.

    Parameters
    ----------
    {parameters}
    """

    learner = ToyPriorLearner
    n_clusters: int = shared("n_clusters", 4)
    _: KW_ONLY
    beta: float = param(0.1, "Weight of the prior's term.", at_least=0)
    batch_size: int = shared("batch_size", 16)
    augmentation: Any = shared("augmentation", "flip")
    lr: float = shared("lr", 0.01)
    epochs: int = shared("epochs", 4)
    seed: int = shared("seed", 0)
    evaluate_every: int = shared("evaluate_every", 2)
    checkpoint_every: int = shared("checkpoint_every", 3)
    device: Any = shared("device", "cpu")

    def make_net(self, view_shape):
        return PriorNet(view_shape, self.n_clusters, derive_seed(self.seed, "net"))
