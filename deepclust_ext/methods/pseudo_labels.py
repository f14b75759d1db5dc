"""The cycle of DeepCluster: cluster all features, then train on the clusters as if they were classes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from deepclust_ext._optional import require
from deepclust_ext.methods.batches import uniform_over_clusters
from deepclust_ext.methods.inference import BATCH
from deepclust_ext.methods.loop import Record, State, Training
from deepclust_ext.methods.objective import Objective
from deepclust_ext.methods.seeds import derive_generator, derive_seed
from deepclust_ext.ops.kmeans import KMeansResult

if TYPE_CHECKING:
    from deepclust_ext.methods.deepcluster import DeepCluster

# Churn matches K clusters to K: beyond this the table and the matching cost more than the cycle that they describe.
CHURN_CLUSTERS = 4096


def all_features(net: Any, augmentation: Any, images: Tensor) -> Tensor:
    """The features (N, d) of the plain view of images, in evaluation mode, on the network's device."""
    device = next(net.parameters()).device
    net.eval()
    # Filled in place: joined at the end, they would be there twice.
    features = torch.empty(len(images), net.dim, dtype=torch.float32, device=device)
    with torch.inference_mode():
        for rows, batch in zip(features.split(BATCH), images.split(BATCH), strict=True):
            rows.copy_(net.features(augmentation.plain(batch.to(device))))
    return features


class PseudoLabelTraining(Training):
    """The training loop with a clustering before the first epoch of every cycle.

    Clustering starts from the weights and the seed alone, so that a run that dies inside it comes to the same labels.
    """

    method: DeepCluster
    net: Any

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.pseudo_labels: Tensor | None = None
        # The same on the device: a step must not wait for a copy.
        self._targets: Tensor | None = None
        self._clustering: Record = {}
        self.net.standardise(self.images)

    # The loop's hooks

    def _begin_epoch(self) -> None:
        """Cluster where a cycle begins, and start its head anew."""
        method = self.method
        cycle, inside = divmod(self.epoch, method.cycle_epochs)
        halted = method.halt_after is not None and cycle >= method.halt_after
        if inside == 0:
            if halted:
                self._clustering = {}
            else:
                self._cluster(cycle)
            if not halted or method.reset_head_after_halt:
                self.net.reset_head(derive_generator(method.seed, "head", cycle))
                self._forget_head()
        self._targets = self._labels().to(self.device)
        self.statistics.add(self._targets[None, None])

    def _visits(self, generator: torch.Generator) -> Tensor:
        """Every cluster equally often, or every image once."""
        if not self.method.uniform_sampling:
            return super()._visits(generator)
        return uniform_over_clusters(self._labels(), generator)

    def _objective(self, views: Tensor, index: Tensor, stage: str) -> Objective:  # noqa: ARG002
        """Cross-entropy of the head against the pseudo-labels."""
        logits, targets = self.net(views), cast(Tensor, self._targets)[index]
        loss = nn.functional.cross_entropy(logits, targets)
        return Objective(loss, terms={"accuracy": (logits.detach().argmax(1) == targets).float().mean()})

    def _more_of_epoch(self) -> Record:
        """What the clustering found, in the epoch that began with it."""
        found, self._clustering = self._clustering, {}
        return found

    def _evaluate(self, summary: dict[str, list[Any]]) -> Record:  # noqa: ARG002
        """Nothing more: the log has every clustering's figures."""
        return {}

    def _end_training(self) -> None:
        """Cluster the last features: the labels of the run."""
        before, seconds = self.pseudo_labels, self.seconds
        self._cluster(-(-self.method.epochs // self.method.cycle_epochs))
        found, self._clustering = self._clustering, {}
        # Results that are made again, as when a file of them is gone, are compared with the same labels again.
        self.pseudo_labels = before
        if "final_clustering" in self.history[-1]:
            self.seconds = seconds
        self.history[-1]["final_clustering"] = found
        if self.run is not None and not any(line.get("event") == "final_clustering" for line in self.run.read_log()):
            self.run.log("final_clustering", epoch=self.epoch, **found)

    def state(self) -> State:
        """With the pseudo-labels, which are another epoch's when clustering has halted."""
        return super().state() | {"pseudo_labels": self.pseudo_labels, "clustering": dict(self._clustering)}

    def load(self, state: State, where: str) -> None:
        """With the pseudo-labels."""
        super().load(state, where)
        self.pseudo_labels, self._clustering = state["pseudo_labels"], dict(state["clustering"])
        self._targets = None if self.pseudo_labels is None else self.pseudo_labels.to(self.device)

    # Clustering

    def _cluster(self, cycle: int) -> None:
        """Make the pseudo-labels of a cycle, and note how they relate to the last ones and to the classes."""
        method, start = self.method, time.perf_counter()
        features = all_features(self.net, self.augmentation, self.images)
        result = self.net.space.fit(
            features,
            init=method.kmeans_init,
            max_iter=method.kmeans_iterations,
            seed=derive_seed(method.seed, "kmeans", cycle),
        )
        labels = result.labels.cpu()
        seconds = round(time.perf_counter() - start, 4)
        self._clustering = {"cycle": cycle, **self._figures(result, labels), "clustering_seconds": seconds}
        self.seconds += seconds
        self.pseudo_labels = labels

    def _figures(self, result: KMeansResult, labels: Tensor) -> Record:
        """For the log alone: nothing is chosen by them."""
        evaluate = require("deepclust_ext.evaluate")
        counts = torch.bincount(labels, minlength=self.method.n_clusters).double()
        figures: Record = {
            "objective": float(result.inertia) / len(labels),
            "kmeans_iterations": int(result.n_iter),
            "empty_met": int(result.n_empty),
            "empty": int((counts == 0).sum()),
            "imbalance": float(self.method.n_clusters * counts.square().sum() / len(labels) ** 2),
        }
        if self.pseudo_labels is not None:
            before = self.pseudo_labels.numpy()
            figures["nmi_previous"] = evaluate.nmi(before, labels.numpy())
            if self.method.n_clusters <= CHURN_CLUSTERS:
                figures["churn"] = evaluate.churn(before, labels.numpy())
        if self.data.labels is not None:
            figures["nmi_labels"] = evaluate.nmi(labels.numpy(), self.data.labels.cpu().numpy())
        return figures

    def _labels(self) -> Tensor:
        """The pseudo-labels, which the first epoch's clustering made."""
        return cast(Tensor, self.pseudo_labels)

    def _forget_head(self) -> None:
        """Drop what the optimizer remembers of a head that is gone."""
        for parameter in self.net.head.parameters():
            self.optimizer.state.pop(parameter, None)
