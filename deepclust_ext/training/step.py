"""One step of training: views, loss, gradient, update."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from deepclust_ext.training.learner import Learner, StepLoss
from deepclust_ext.training.place import Place
from deepclust_ext.training.seeds import derive_generator, derive_seed, seed_default_generators


@dataclass(frozen=True)
class Stepped:
    """A step that was made, and its seconds, of which those of the augmentation."""

    found: StepLoss
    seconds: float
    augmentation_seconds: float


def train_step(learner: Learner, index: Tensor, place: Place, *, full_rates: list[float], seed: int) -> Stepped:
    """Augment images `index` (n,), take the loss and move the weights; nothing is read back from the device.

    Gradients are whole between `backward` and `step`: what several processes share is shared there.
    """
    start = time.perf_counter()
    share = learner.rate(place)
    for group, rate in zip(learner.optimizer.param_groups, full_rates, strict=True):
        group["lr"] = rate * share
    # On the CPU for every device: the same views everywhere.
    generator = derive_generator(seed, "augment", place.epoch, place.step)
    with torch.no_grad():
        # One call for all views: parameters are drawn for each image, so repeats get views of their own.
        repeated = index.repeat(learner.n_views)
        views = learner.augmentation.views_of(learner.images.values, repeated, generator=generator)
    augmented = time.perf_counter()
    # Dropout and the like draw from the default generators.
    seed_default_generators(derive_seed(seed, "modules", place.epoch, place.step), views.device)
    found = learner.loss(views, index, place)
    learner.optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(found.loss)
    learner.optimizer.step()
    with torch.no_grad():
        learner.after_step(index, place)
    return Stepped(found, time.perf_counter() - start, augmented - start)
