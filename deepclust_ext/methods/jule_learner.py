"""JULE at work: periods of merging and of training, and what they come to."""

from __future__ import annotations

import copy
import math
import time
from typing import Any

import torch
from torch import Tensor

from deepclust_ext import cut, initial_clusters, jule_loss
from deepclust_ext.data.augment import Augmentation
from deepclust_ext.data.images import ImageData
from deepclust_ext.evaluate import scores
from deepclust_ext.evaluate.partition import partition_figures
from deepclust_ext.nn import JULENet
from deepclust_ext.training.inference import all_features, plain_pixels
from deepclust_ext.training.learner import Conclusion, Learner, Record, State, StepLoss
from deepclust_ext.training.optim import build_optimizer
from deepclust_ext.training.place import Place, inverse_decay
from deepclust_ext.training.seeds import derive_seed
from deepclust_ext.training.sharing import shared_knn
from deepclust_ext.training.watch import occupancy_figures


class JULELearner(Learner):
    """Merges before the first epoch of every period but the first, from the weights and the last labels alone."""

    # p is a JULE, which imports this file.
    def __init__(self, p: Any, net: JULENet, images: ImageData, augmentation: Augmentation) -> None:
        options: dict[str, Any] = {"lr": p.lr, "weight_decay": p.weight_decay}
        optimizer = build_optimizer(p.optimizer, net.parameters(), momentum=p.momentum, nesterov=False, **options)
        super().__init__(net, optimizer, images, augmentation)
        # The clusters that are trained on, and how many there were in each period.
        self.p, self.labels, self.counts = p, torch.empty(0, dtype=torch.int64), list[int]()
        self._initial = copy.deepcopy(net.state_dict()) if p.reinitialise else {}

    def rate(self, place: Place) -> float:
        """The paper's, over the whole run."""
        return inverse_decay(place.number, 1e-4, 0.75)

    def begin_epoch(self, place: Place) -> Record:
        """Merge where a period begins; the first has the chains of neighbours of the pixels."""
        figures: Record = {}
        if place.epoch % self.p.period_epochs == 0:
            start = time.perf_counter()
            before = self.labels if place.epoch else None
            if before is None:
                found = initial_clusters(shared_knn(plain_pixels(self.augmentation, self.images.images), 1).indices)
            else:
                features = all_features(self.net, self.augmentation, self.images.images)
                found = self.p.merge(features, self._next_count(), before).labels
            self._label(found, [*self.counts, int(found.max()) + 1])
            figures = partition_figures(self.labels, self.counts[-1], classes=self.images.labels)
            if before is not None and self.p.reinitialise:
                self.net.load_state_dict(self._initial)
                self.optimizer.state.clear()
            figures["merging_seconds"] = round(time.perf_counter() - start, 4)
        return {"clusters": self.counts[-1], **occupancy_figures(torch.bincount(self.labels)[None]), **figures}

    def forward(self, views: Tensor, index: Tensor, place: Place) -> Tensor:  # noqa: ARG002
        """The embeddings (m, d)."""
        embedded: Tensor = self.net(views)
        return embedded

    def loss(self, outputs: Tensor, index: Tensor, place: Place) -> StepLoss:
        """The weighted triplet loss within the batch."""
        p, seed = self.p, derive_seed(self.p.seed, "triplets", place.epoch, place.step)
        options: dict[str, Any] = {"gamma": p.gamma, "margin": p.margin, "n_negatives": p.n_negatives}
        return StepLoss(jule_loss(outputs, self._targets[index], generator=seed, **options))

    def done(self, place: Place) -> bool:
        """Whether the next merge is the last, after which nothing is trained."""
        return self._merged_out(place) or super().done(place)

    def conclude(self, place: Place) -> Conclusion:
        """Merge down to K, from the run's clusters and from chains of neighbours."""
        p, features = self.p, all_features(self.net, self.augmentation, self.images.images)
        smallest, net, labels = p.smallest_cluster(len(features)), copy.deepcopy(self.net), {}
        record: Record = {"clusters": list(self.counts), "merged_out": self._merged_out(place)}
        record |= {"min_cluster_size": smallest, "result": p.result}
        for name, start in (("sf", self.labels), ("rc", None)):
            tree = p.merge(features, p.n_clusters, start)
            labels[name] = cut(tree, tree.n_clusters, min_size=smallest, x=features).labels.cpu()
            for title, found in ((name, labels[name]), (f"{name}_plain", tree.labels.cpu())):
                known = {} if self.images.labels is None else scores(found, self.images.labels)
                record[title] = {"clusters": int(found.max()) + 1, **known}
        net.space.settle(features, labels[p.result])
        return Conclusion(net, labels=labels[p.result], record=record, centroids=net.space.centroids.cpu())

    def state(self) -> State:
        """The clusters that are trained on."""
        return {"labels": self.labels, "counts": list(self.counts)}

    def load(self, state: State) -> None:
        """Take them over."""
        self._label(state["labels"], list(state["counts"]))

    def _label(self, labels: Tensor, counts: list[int]) -> None:
        """Train on these clusters (N,) from now on; their number is the last of `counts`."""
        self.labels, self.counts = labels.cpu(), counts
        self._targets = self.labels.to(self.images.images.device)
        self.watched = (1, counts[-1]) if counts else None

    def _merged_out(self, place: Place) -> bool:
        """Whether the run ends by its merges, not by its planned epochs."""
        whole = place.epoch > 0 and place.epoch % self.p.period_epochs == 0
        return whole and self._next_count() <= self.p.n_clusters

    def _next_count(self) -> int:
        """Clusters after the next merge."""
        wanted: int = self.p.n_clusters
        merged: int = math.ceil(self.p.eta * self.counts[-1])
        return max(wanted, self.counts[-1] - merged)
