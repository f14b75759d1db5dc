"""What a run is to be, where it is, and learning rates as pure functions of that: a resume needs no state of theirs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

SCHEDULES = ("cosine", "constant")


@dataclass(frozen=True)
class Place:
    """A place in a run.

    Parameters
    ----------
    epoch, step : int
        Epochs that are done, and steps of the present one.
    n_batches : int
        Steps of a pass over the images.
    passes : tuple of str
        The passes of an epoch.
    epochs : int
        Epochs that are planned; a run may end before, when its data say so.

    Examples
    --------
    >>> place = Place(epoch=2, step=5, n_batches=4, passes=("over", "main"), epochs=10)
    >>> place.stage, place.batch, place.number, place.total
    ('main', 1, 21, 80)
    """

    epoch: int
    step: int
    n_batches: int
    passes: tuple[str, ...]
    epochs: int

    @property
    def n_steps(self) -> int:
        """Steps of an epoch: every pass visits the images once."""
        return self.n_batches * len(self.passes)

    @property
    def number(self) -> int:
        """Steps of the run that are done."""
        return self.epoch * self.n_steps + self.step

    @property
    def total(self) -> int:
        """Steps that are planned."""
        return self.epochs * self.n_steps

    @property
    def pass_number(self) -> int:
        """Which pass of the epoch the step belongs to."""
        return self.step // self.n_batches

    @property
    def stage(self) -> str:
        """The pass's name."""
        return self.passes[self.pass_number]

    @property
    def batch(self) -> int:
        """Which batch of its pass the step takes."""
        return self.step % self.n_batches

    def next_step(self) -> Place:
        """One step on."""
        return replace(self, step=self.step + 1)

    def next_epoch(self) -> Place:
        """The beginning of the next epoch."""
        return replace(self, epoch=self.epoch + 1, step=0)

    def in_round(self, epochs: int) -> Place:
        """The place within rounds of so many epochs each: a schedule of it starts anew in every round."""
        return replace(self, epoch=self.epoch % epochs, epochs=epochs)


@dataclass(frozen=True)
class Plan:
    """What the loop needs to know of a run.

    Parameters
    ----------
    seed : int
        All random numbers come from it.
    batch_size : int
        Images in a step.
    epochs : int
        Planned; the learner says when it is done.
    checkpoint_every : int
        Epochs between two checkpoints.
    evaluate_every : int, optional
        Epochs between two labellings of the training images for the log; None for none.
    precision : {"float32", "bfloat16"}
        Of the network's products in training.
    """

    seed: int
    batch_size: int
    epochs: int
    checkpoint_every: int
    evaluate_every: int | None = None
    precision: str = "float32"


def scheduled(name: str, place: Place, *, warmup: float = 0.0) -> float:
    """The share of the full learning rate by the name of a schedule.

    Parameters
    ----------
    name : {"cosine", "constant"}
        The shape after the warm-up.
    place : Place
        Where the run is.
    warmup : float
        Share of the planned steps, in [0, 1), over which the rate first rises linearly.

    Returns
    -------
    share : float
        In (0, 1].

    Raises
    ------
    ValueError
        If the schedule is unknown.

    Examples
    --------
    >>> places = [Place(0, step, 4, ("main",), 1) for step in range(4)]
    >>> [round(scheduled("cosine", place), 3) for place in places]
    [1.0, 0.854, 0.5, 0.146]
    """
    if name not in SCHEDULES:
        raise ValueError(f"scheduled: 'name' must be one of {', '.join(SCHEDULES)}, got {name!r}")
    rising = round(warmup * place.total)
    if place.number < rising:
        return (place.number + 1) / rising
    return 1.0 if name == "constant" else cosine(place.number - rising, place.total - rising)


def cosine(step: int, n_steps: int) -> float:
    r"""The half cosine :math:`\frac12 (1 + \cos(\pi t))`, t from 0 at step 0 to 1 after the last step."""
    return 0.5 * (1.0 + math.cos(math.pi * step / max(1, n_steps)))


def steps(epoch: int, milestones: Sequence[int], factor: float = 0.1) -> float:
    """The factor, once for each milestone that the epoch has reached.

    Examples
    --------
    >>> [round(steps(epoch, (120, 160)), 4) for epoch in (119, 120, 160)]
    [1.0, 0.1, 0.01]
    """
    return float(factor ** sum(epoch >= milestone for milestone in milestones))


def inverse_decay(step: int, gamma: float, power: float) -> float:
    r"""Inverse decay :math:`(1 + \gamma\, step)^{-power}`, JULE's with 1e-4 and 0.75.

    Examples
    --------
    >>> round(inverse_decay(10_000, 1e-4, 0.75), 4)
    0.5946
    """
    return float((1.0 + gamma * step) ** -power)
