"""What a method must be for the loop to train it: the one page to read before writing a method."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from deepclust_ext.data.augment import Augmentation
from deepclust_ext.training.place import Place

Record = dict[str, Any]
State = dict[str, Any]


@dataclass(frozen=True)
class StepLoss:
    """What a step gives the loop.

    Parameters
    ----------
    loss : Tensor
        Scalar, to be minimised.
    terms : dict of Tensor
        Detached tensors, of one shape at every step of a pass, whose means over the epoch are logged.
    probabilities : Tensor, optional
        (A, H, n, K), for a learner that is `watched`: their largest entries are counted.
    """

    loss: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
    probabilities: Tensor | None = None


@dataclass(frozen=True)
class Conclusion:
    """What is left when training has ended.

    Parameters
    ----------
    net : nn.Module
        What labels images from now on: `net.outputs(views)` returns probabilities (H, B, K) and an embedding (B, d).
        A network like that of `make_net`, as files are read into one; a copy of the learner's if concluding changes it.
    labels : Tensor, optional
        (N,) int64 in [0, K), where the method has labels of its own, such as a merge's; else they are those of the head
        whose labels of two views agree best.
    confidence : Tensor, optional
        (N,) float32, of these labels; by default what `training.placement.Centers` says.
    centroids : Tensor, optional
        (K or fewer, p), where clusters are those of centroids, among the embeddings as `net.space` prepares them if
        there is one: confidence is then a margin, and no probability.
    record : dict
        Logged as the run's conclusion.
    """

    net: Any
    labels: Tensor | None = None
    confidence: Tensor | None = None
    centroids: Tensor | None = None
    record: Record = field(default_factory=dict)


class Learner:
    """One method at work on one set of images: a network, its optimizer, and whatever else must survive a kill.

    The loop calls, of every epoch, `begin_epoch`; of every pass, `visits`; of every step, `rate`, `forward`, `loss`
    and, once the optimizer has moved the weights, `after_step`; then `end_epoch`, and `done` between two epochs.
    `conclude` comes last. Several processes that train one run make the same calls, and `forward` alone differs: each
    is given its part of the batch. A run that is killed goes on from its newest checkpoint: what was done since is done
    again, and comes to the same bits if every call depends on nothing but the weights, the optimizer, `state()`, the
    seed and the place.
    Random numbers are therefore drawn from `derive_generator(seed, purpose, place.epoch, ...)`, never from a generator
    that is kept.

    Parameters
    ----------
    net : nn.Module
        What is trained, on its device; see `Conclusion` for what it must be able to do.
    optimizer : Optimizer
        Of its parameters, at the full learning rate.
    images : ImageData or EmbeddingData
        The training images, on the device. Labels are for figures in the log alone: nothing may be chosen by them.
    augmentation : Augmentation
        Its random views are what `loss` is given.
    """

    # Views of each image in a step.
    n_views: int = 1
    # The passes over the images that an epoch has; `place.stage` says which one a step belongs to.
    passes: tuple[str, ...] = ("main",)
    # (heads, clusters) whose occupancy and collapse are watched; None where there is nothing to watch. It may change
    # from epoch to epoch, as when clusters are merged.
    watched: tuple[int, int] | None = None
    # By which agreement of two views the head is chosen: normalised mutual information, or "mi".
    selection: str = "nmi"

    def __init__(self, net: Any, optimizer: torch.optim.Optimizer, images: Any, augmentation: Augmentation) -> None:
        self.net, self.optimizer, self.images, self.augmentation = net, optimizer, images, augmentation

    def rate(self, place: Place) -> float:  # noqa: ARG002
        """The share of the full learning rate: a pure function of the place (see `training.place`)."""
        return 1.0

    def begin_epoch(self, place: Place) -> Record:  # noqa: ARG002
        """Cluster, find neighbours, merge; returns figures for the epoch's record.

        Figures named as `occupancy_figures` names them are watched for a collapse like those of the steps. Called
        again when a run is resumed from the epoch's first step.
        """
        return {}

    def visits(self, place: Place, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """The images of a pass in the order of their visits, int64 on the CPU; by default each once.

        At least as many as there are images; those that do not fill a last batch are left out.

        Asked again when a run is resumed within the pass: it must depend on nothing that steps of the pass change.
        """
        return torch.randperm(len(self.images), generator=generator)

    def forward(self, views: Tensor, index: Tensor, place: Place) -> Any:  # noqa: ARG002
        """What is made of each view for itself, batch norm and dropout aside: the work that several processes share.

        Of the views (A * m, C, H, W) of images `index` (m,), a process's part of a batch, view a of image i at row
        a * m + i. Returns a tensor with rows in that order, or a tuple of such and None, each with an A of its own; by
        default the views, and then every process does all the work.
        """
        return views

    def loss(self, outputs: Any, index: Tensor, place: Place) -> StepLoss:
        """The loss of what `forward` has made of the whole batch, images `index` (n,), view a of i at row a * n + i."""
        raise NotImplementedError(f"{type(self).__name__}.loss: a learner must define it")

    def after_step(self, index: Tensor, place: Place) -> None:
        """Update a memory bank or a moving average; without gradients, after the optimizer's step."""

    def end_epoch(self, place: Place) -> Record:  # noqa: ARG002
        """Figures for the epoch's record; `place` is that of its end."""
        return {}

    def done(self, place: Place) -> bool:
        """Whether the run has ended; asked between epochs alone, and more than once. By default after those planned."""
        return place.epoch >= place.epochs

    def conclude(self, place: Place) -> Conclusion:  # noqa: ARG002
        """What the run has come to. It changes nothing of the learner, as it may be asked for twice."""
        return Conclusion(self.net)

    def state(self) -> State:
        """Tensors and plain values, beyond network and optimizer, that a resume needs."""
        return {}

    def load(self, state: State) -> None:
        """Take over what `state` returned; weights and moments are loaded already."""
