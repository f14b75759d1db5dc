"""The training loop every method shares: steps, schedule, log, evaluation, checkpoints and a clean stop."""

from __future__ import annotations

import math
import time
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from deepclust_ext._optional import require
from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.data.images import ImageData
from deepclust_ext.methods.batches import EpochOrder
from deepclust_ext.methods.inference import label_heads
from deepclust_ext.methods.monitor import HeadStatistics, collapsed_heads
from deepclust_ext.methods.objective import EpochSums, Objective
from deepclust_ext.methods.optim import learning_rate_factor
from deepclust_ext.methods.progress import Progress, Show
from deepclust_ext.methods.saving import load_weights, stamp
from deepclust_ext.methods.seeds import derive_generator, derive_seed, seed_default_generators
from deepclust_ext.runs import Interrupted, RunDirectory, StopGuard

if TYPE_CHECKING:
    from deepclust_ext.methods.base import Method

# Collapse in the first epochs is common and passes; a warning before this share of the run would be noise.
QUIET_SHARE = 0.1

State = dict[str, Any]
Record = dict[str, Any]


class Training:
    """One run of a method on its training images, from its present epoch to the last.

    Everything random is drawn from generators derived from (seed, purpose, epoch, step), and the learning
    rate is a function of the step: the state is the weights, the optimizer and the place in the run, and a
    run that is resumed from it ends with the same bits as one that was never stopped.

    Parameters
    ----------
    method : Method
        Gives the settings and the objective.
    net : nn.Module
        What is trained, already on the device.
    data : ImageData
        The training images; its labels are scored against, nothing else.
    augmentation : callable
        As `make_augmentation` returns it.
    run : RunDirectory, optional
        Where the log and the checkpoints go; without it nothing is written and no signal is caught.
    progress : bool, None or callable
        As `Progress` takes it.
    """

    def __init__(
        self,
        method: Method,
        net: nn.Module,
        data: ImageData,
        augmentation: Any,
        *,
        run: RunDirectory | None,
        progress: Show,
    ) -> None:
        self.method, self.net, self.data, self.augmentation, self.run = method, net, data, augmentation, run
        self.progress = progress
        self.device = next(net.parameters()).device
        self.images = data.images.to(self.device)
        self.order = EpochOrder(len(data), method.batch_size)
        self.passes = method._passes()
        self.optimizer = method._build_optimizer(net)
        # A resume loads the groups with the rate of the step it stopped at.
        self._full_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.statistics = HeadStatistics(method._n_heads(net), method.n_clusters, self.device)
        self.epoch = 0
        self.step = 0
        self.seconds = 0.0
        self.history: list[Record] = []
        self.sums = EpochSums()
        self._collapsed: list[int] = []
        self._warned: set[int] = set()
        self._previous: Tensor | None = None

    @property
    def n_steps(self) -> int:
        """Steps in an epoch: every pass visits the images once."""
        return self.order.n_batches * len(self.passes)

    @property
    def total_steps(self) -> int:
        """Steps in the run."""
        return self.method.epochs * self.n_steps

    # State

    def state(self) -> State:
        """Everything a resume needs; fit for `torch.load(weights_only=True)`."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "model": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "statistics": self.statistics.state(),
            **self.sums.state(),
            "collapsed": list(self._collapsed),
            "previous": self._previous,
        }

    def load(self, state: State, where: str) -> None:
        """Go to the place in the run in folder `where` at which `state` was taken."""
        load_weights(self.net, state, where)
        self.optimizer.load_state_dict(state["optimizer"])
        self.statistics.load(state["statistics"])
        self.sums.load(state)
        self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]
        self._collapsed = list(state["collapsed"])
        self._previous = state["previous"]

    def save(self) -> None:
        """Write a checkpoint, if there is a run folder."""
        if self.run is not None:
            self.run.checkpoints.save(stamp(self.method, self.state()))

    # Training

    def train(self, guard: StopGuard) -> None:
        """Train to the last epoch; save and raise `Interrupted` when a signal asks for it."""
        if self.run is not None and self.epoch == self.step == 0:
            self.save()
        epochs, done = self.method.epochs, self.epoch * self.n_steps + self.step
        with Progress(self.progress, epochs=epochs, steps=self.n_steps, done=done) as progress:
            while self.epoch < epochs:
                self._train_epoch(guard, progress)
                progress.epoch(self.history[-1]["loss"])
        self._end_training()

    # What a method with more than a loss may replace

    def _begin_epoch(self) -> None:
        """Prepare the epoch; done again when a run is resumed at an epoch's first step."""

    def _visits(self, generator: torch.Generator) -> Tensor:
        """The images of a pass in the order of their visits, int64 (N,)."""
        return torch.randperm(len(self.data), generator=generator)

    def _objective(self, views: Tensor, index: Tensor, stage: str) -> Objective:  # noqa: ARG002
        """The loss of the views of the images `index`."""
        return self.method._objective(self.net, views, stage)

    def _more_of_epoch(self) -> Record:
        """What the log says of an epoch beyond its loss and its heads."""
        return {}

    def _end_training(self) -> None:
        """What is left to do after the last epoch, before images are labelled; done again when it was cut off."""

    # An epoch

    def _train_epoch(self, guard: StopGuard, progress: Progress) -> None:
        """Do the rest of the present epoch, then its bookkeeping."""
        seed = self.method.seed
        if self.step == 0:
            self._begin_epoch()
        self.net.train()
        batches: Tensor | None = None
        while self.step < self.n_steps:
            number, batch = divmod(self.step, self.order.n_batches)
            if batches is None or batch == 0:
                order = self._visits(derive_generator(seed, "order", self.epoch, number))
                batches = self.order.batches(order).to(self.device)
            self._train_step(self.passes[number], batches[batch])
            self.step += 1
            progress.step()
            if guard.requested is not None:
                self._stop(guard.requested)
        self._end_epoch()

    def _train_step(self, stage: str, index: Tensor) -> None:
        """Augment, evaluate the objective, update the weights; nothing is read back from the device."""
        start = time.perf_counter()
        method = self.method
        place = (self.epoch, self.step)
        factor = learning_rate_factor(
            method.schedule,
            self.epoch * self.n_steps + self.step,
            self.total_steps,
            round(method.warmup * self.total_steps),
        )
        for group, rate in zip(self.optimizer.param_groups, self._full_rates, strict=True):
            group["lr"] = rate * factor
        # On the CPU for every device: the same views everywhere.
        generator = derive_generator(method.seed, "augment", *place)
        with torch.no_grad():
            # One call for all views: parameters are drawn per image, so repeats get views of their own.
            views = self.augmentation(self.images[index.repeat(method.n_augmentations)], generator=generator)
        augmented = time.perf_counter()
        # Dropout and the like draw from the default generators.
        seed_default_generators(derive_seed(method.seed, "modules", *place), self.device)
        objective = self._objective(views, index, stage)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(objective.loss)
        self.optimizer.step()
        end = time.perf_counter()
        self.sums.add(objective, step=end - start, augmentation=augmented - start)
        if objective.probabilities is not None:
            self.statistics.add(objective.probabilities.detach().argmax(-1))

    def _stop(self, signum: int) -> None:
        """Save once and leave."""
        self.save()
        if self.run is not None:
            self.run.log("interrupt", epoch=self.epoch, step=self.step, signal=signum)
        raise Interrupted(signum)

    # Bookkeeping

    def _end_epoch(self) -> None:
        """Log the epoch, evaluate and save on their periods."""
        method = self.method
        means, timing = self.sums.means(), self.sums.timing()
        if not math.isfinite(means["loss"]):
            raise FloatingPointError(
                f"{method._name}: the loss became {means['loss']} in epoch {self.epoch + 1}; try a lower 'lr' "
                f"(it is {method.lr:g}) or a longer 'warmup'"
            )
        lr = self.optimizer.param_groups[0]["lr"]
        summary = self.statistics.summary()
        self.epoch, self.step = self.epoch + 1, 0
        last = self.epoch == method.epochs
        record: Record = {"epoch": self.epoch, **means, **summary, "lr": lr, **self._more_of_epoch()}
        if self.epoch % method.evaluate_every == 0 or last:
            start = time.perf_counter()
            record |= self._evaluate(summary)
            record["evaluation_seconds"] = round(time.perf_counter() - start, 4)
        record |= timing
        self.seconds += self.sums.seconds["step"] + record.get("evaluation_seconds", 0.0)
        self.history.append(record)
        if self.run is not None:
            self.run.log("epoch", **record)
        self._look_for_collapse(summary, last)
        self._reset_epoch()
        if self.epoch % method.checkpoint_every == 0 or last:
            self.save()

    def _reset_epoch(self) -> None:
        """Forget the epoch's sums and counts."""
        self.sums = EpochSums()
        self.statistics = HeadStatistics(len(self.statistics.counts), self.statistics.n_clusters, self.device)

    def _evaluate(self, summary: dict[str, list[Any]]) -> Record:
        """Label the training images: the share that changed, and scores where classes are known."""
        evaluate = require("deepclust_ext.evaluate")
        labels = label_heads(self.method, self.net, self.augmentation, self.images)[0]
        record: Record = {}
        if self._previous is not None:
            agreement = summary.get("nmi_views", [0.0] * len(labels))
            head = max(range(len(labels)), key=lambda h: (agreement[h], -h))
            record["churn"] = evaluate.churn(self._previous[head].numpy(), labels[head].numpy())
        self._previous = labels
        if self.data.labels is not None:
            y = self.data.labels.cpu().numpy()
            record["scores"] = [evaluate.scores(head.numpy(), y) for head in labels]
        return record

    def _look_for_collapse(self, summary: dict[str, list[Any]], last: bool) -> None:
        """Log every head that newly collapsed, and warn once a head unless it is early in the run."""
        reasons = collapsed_heads(summary, self.method.n_clusters)
        early = self.epoch < QUIET_SHARE * self.method.epochs and not last
        for head, reason in reasons.items():
            if head not in self._collapsed and self.run is not None:
                self.run.log("warning", epoch=self.epoch, kind="collapse", head=head, message=reason)
            if head not in self._warned and not early:
                self._warned.add(head)
                warnings.warn(
                    f"{self.method._name}: head {head} {reason} in epoch {self.epoch}: it has collapsed",
                    DeepclustWarning,
                    stacklevel=2,
                )
        self._collapsed = sorted(reasons)
