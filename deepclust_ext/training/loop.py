"""The loop that trains any learner: steps, bookkeeping, checkpoints and a clean stop. It knows no method."""

from __future__ import annotations

import math
import signal
import time
from dataclasses import replace

import torch
from torch import Tensor

from deepclust_ext.runs import Interrupted, StopGuard
from deepclust_ext.training.files import load_weights
from deepclust_ext.training.journal import Journal
from deepclust_ext.training.labelling import EpochLabels
from deepclust_ext.training.learner import Learner, Record, State
from deepclust_ext.training.place import Place, Plan
from deepclust_ext.training.progress import Progress, Show
from deepclust_ext.training.seeds import derive_generator
from deepclust_ext.training.step import train_step
from deepclust_ext.training.sums import EpochSums
from deepclust_ext.training.team import current
from deepclust_ext.training.visits import EpochOrder
from deepclust_ext.training.watch import QUIET_SHARE, Watch


class Training:
    """A learner's run, from its present place to its end.

    The state is the weights, the optimizer, what the learner keeps, and the place: everything random is drawn from
    (seed, purpose, place), so a run that is resumed ends with the same bits as one that was never stopped.

    Parameters
    ----------
    learner : Learner
        What is trained.
    plan : Plan
        Seed, batch size, periods.
    journal : Journal
        Where log and checkpoints go.
    """

    def __init__(self, learner: Learner, plan: Plan, journal: Journal) -> None:
        self.learner, self.plan, self.journal = learner, plan, journal
        self.order = EpochOrder(len(learner.images), plan.batch_size)
        if self.order.batch_size < current().size:
            raise ValueError(
                f"{journal.identity.method}: 'batch_size' must be at least the number of ranks ({current().size}), got "
                f"batches of {self.order.batch_size} images"
            )
        if current().size > 1 and any(isinstance(each, torch.jit.ScriptModule) for each in learner.net.modules()):
            raise ValueError(
                f"{journal.identity.method}: 'network' must be without scripted modules on several ranks: their batch "
                "norm would see the rows of one rank"
            )
        self.place = Place(0, 0, self.order.n_batches, learner.passes, plan.epochs)
        self.device = learner.images.values.device
        # Before a resume loads the groups with the rate of the step that it stopped at.
        self._full_rates = [group["lr"] for group in learner.optimizer.param_groups]
        self.seconds = 0.0
        self.opening: Record = {}
        self.sums, self.watch = EpochSums(), Watch(journal.identity.method)
        self.labels = EpochLabels()

    def state(self) -> State:
        """Everything a resume needs; fit for `torch.load(weights_only=True)`."""
        return {
            "place": {"epoch": self.place.epoch, "step": self.place.step},
            "seconds": self.seconds,
            "net": self.learner.net.state_dict(),
            "optimizer": self.learner.optimizer.state_dict(),
            "opening": dict(self.opening),
            "sums": self.sums.state(),
            "watch": self.watch.state(),
            "labels": self.labels.state(),
            "own": self.learner.state(),
        }

    def load(self, state: State, where: str) -> None:
        """Go to the place in the run in folder `where` at which `state` was taken."""
        load_weights(self.learner.net, state, where, trained=True)
        self.learner.optimizer.load_state_dict(state["optimizer"])
        self.learner.load(state["own"])
        self.sums.load(state["sums"])
        self.watch.load(state["watch"], self.device)
        self.labels.load(state["labels"])
        self.seconds, self.opening = state["seconds"], dict(state["opening"])
        self.place = replace(self.place, **state["place"])

    def train(self, guard: StopGuard, show: Show) -> None:
        """Train until the learner is done; save and raise `Interrupted` when a signal asks for it."""
        if self.place.number == 0:
            self.journal.save(self.state())
        with Progress(show, epochs=self.plan.epochs, steps=self.place.n_steps, done=self.place.number) as progress:
            # In mid-epoch nobody is asked: an end that the data decide is decided on whole epochs.
            while self.place.step > 0 or not self.learner.done(self.place):
                self._train_epoch(guard, progress)
                progress.epoch(self.journal.history[-1], last=self.learner.done(self.place))

    def _train_epoch(self, guard: StopGuard, progress: Progress) -> None:
        """Do the rest of the present epoch, then its bookkeeping."""
        if self.place.step == 0:
            start = time.perf_counter()
            self.opening = self.learner.begin_epoch(self.place)
            self.seconds += time.perf_counter() - start
        self.learner.net.train()
        batches: Tensor | None = None
        while self.place.step < self.place.n_steps:
            if batches is None or self.place.batch == 0:
                generator = derive_generator(self.plan.seed, "order", self.place.epoch, self.place.pass_number)
                batches = self.order.batches(self.learner.visits(self.place, generator)).to(self.device)
            index = batches[self.place.batch]
            done = train_step(
                self.learner,
                index,
                self.place,
                full_rates=self._full_rates,
                seed=self.plan.seed,
                precision=self.plan.precision,
                stop=guard.requested is not None,
            )
            self.sums.add(done.found, step=done.seconds, augmentation=done.augmentation_seconds)
            if done.found.probabilities is not None:
                self.watch.add(done.found.probabilities)
            self.place = self.place.next_step()
            progress.step()
            # Several processes stop after the same step: a signal that came during it waits for the next.
            if done.stop if current().size > 1 else guard.requested is not None:
                signum = guard.requested or signal.SIGTERM
                self.journal.save(self.state())
                self.journal.log("interrupt", epoch=self.place.epoch, step=self.place.step, signal=signum)
                raise Interrupted(signum)
        self._end_epoch()

    def _end_epoch(self) -> None:
        """Log the epoch, label and save on their periods."""
        learner, plan, start = self.learner, self.plan, time.perf_counter()
        current().check_same(learner.net, self.place.epoch + 1)
        means, seen = self.sums.means(), self.watch.figures()
        if not math.isfinite(means["loss"]):
            lr = self.journal.identity.parameters.get("lr")
            raise FloatingPointError(
                f"{self.journal.identity.method}: the loss became {means['loss']} in epoch {self.place.epoch + 1}; "
                f"try a lower 'lr' (it is {lr}) or a longer 'warmup'"
            )
        record: Record = {"epoch": self.place.epoch + 1, **means, "lr": learner.optimizer.param_groups[0]["lr"]}
        figures = self.opening | learner.end_epoch(self.place)
        if taken := record.keys() & figures.keys():
            raise ValueError(f"{type(learner).__name__}: figures of an epoch need other names than {', '.join(taken)}")
        record |= seen | figures
        self.place = self.place.next_epoch()
        last = learner.done(self.place)
        if plan.evaluate_every is not None and (last or self.place.epoch % plan.evaluate_every == 0):
            before = time.perf_counter()
            record |= self.labels.look(learner, seen)
            record["evaluation_seconds"] = round(time.perf_counter() - before, 4)
        record |= self.sums.timing()
        self.seconds += self.sums.seconds["step"] + time.perf_counter() - start
        self.journal.epoch(record)
        early = self.place.epoch < QUIET_SHARE * plan.epochs and not last
        self.watch.look(record, learner.watched, early=early, log=self.journal.log)
        self.sums, self.opening = EpochSums(), {}
        self.watch.reset()
        if last or self.place.epoch % plan.checkpoint_every == 0:
            self.journal.save(self.state())
