"""One step of training: views, loss, gradient, update."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from deepclust_ext.training.learner import Learner, StepLoss
from deepclust_ext.training.place import Place
from deepclust_ext.training.precision import in_float32, reduced
from deepclust_ext.training.seeds import derive_generator, derive_seed, seed_default_generators
from deepclust_ext.training.team import current
from deepclust_ext.training.whole_batch import within_whole_batch


@dataclass(frozen=True)
class Stepped:
    """A step that was made, and its seconds, of which those of the augmentation."""

    found: StepLoss
    seconds: float
    augmentation_seconds: float
    stop: bool = False


def train_step(
    learner: Learner,
    index: Tensor,
    place: Place,
    *,
    full_rates: list[float],
    seed: int,
    precision: str = "float32",
    stop: bool = False,
) -> Stepped:
    """Augment images `index` (n,), take the loss and move the weights; nothing is read back from a lone device.

    Each of several processes forwards its part of the batch, in `precision`. The loss is that of the whole, the same on
    all of them, and gradients are averaged between `backward` and `step`. Where one of them wants to `stop`, all hear
    of it.
    """
    start = time.perf_counter()
    team, n = current(), len(index)
    share = learner.rate(place)
    for group, rate in zip(learner.optimizer.param_groups, full_rates, strict=True):
        group["lr"] = rate * share
    # On the CPU for every device: the same views everywhere.
    generator = derive_generator(seed, "augment", place.epoch, place.step)
    with torch.no_grad():
        # One call for all views: parameters are drawn for each image, so repeats get views of their own.
        repeated = index.repeat(learner.n_views)
        views = team.cut(learner.augmentation.views_of(learner.images.values, repeated, generator=generator), n)
    augmented = time.perf_counter()
    # Dropout and the like draw from the default generators.
    seed_default_generators(derive_seed(seed, "modules", place.epoch, place.step), views.device)
    with within_whole_batch(team, n), reduced(precision, views.device):
        outputs = in_float32(learner.forward(views, index[team.share(n)], place))
    found = learner.loss(team.whole(outputs, n), index, place)
    learner.optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(found.loss)
    stop = team.average(learner.optimizer, stop)
    learner.optimizer.step()
    with torch.no_grad():
        learner.after_step(index, place)
    return Stepped(found, time.perf_counter() - start, augmented - start, stop)
