"""Methods trained on 1, 2 and 3 ranks: the same weights within rounding, the same labels; resumed on other counts."""

from __future__ import annotations

import json
import os
import signal
import warnings

import numpy as np
import pytest
import torch
from support.clidata import quarters, single_thread
from torch import nn
from torch.nn import functional

from deepclust_ext import methods
from deepclust_ext.data.augment import Identity
from deepclust_ext.data.images import ImageData
from deepclust_ext.runs import Interrupted
from deepclust_ext.training import Learner, Place, StepLoss, joined, loop, sharing
from deepclust_ext.training.step import train_step

TREE = {"network": "tiny8", "width": 0.25}
METHODS = {
    "DHOG": {
        **TREE, "n_heads": 2, "hidden": 16, "n_augmentations": 2, "augmentation": "digits", "epochs": 6, "lr": 0.003,
        "alpha": 0.0, "evaluate_every": 4, "seed": 1,
    },
    "DeepCluster": {**TREE, "epochs": 3, "lr": 0.05},
    "SuperAND": {
        **TREE, "dim": 8, "augmentation": "digits", "rounds": 2, "round_epochs": 2, "n_neighbors": 3, "lr": 0.01,
    },
    "JULE": {"width": 0.2, "dim": 8, "n_neighbors": 8, "period_epochs": 2, "eta": 0.4},
    "VCAMI": {
        **TREE, "latent": 8, "units": 16, "hidden": 16, "epochs": 12, "lr": 5e-3, "prior_start": 0.5,
        "augmentation": "objects", "evaluate_every": 4,
    },
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with single_thread():
        yield


def fit(name, run=None, resume=False, **changes):
    settings = {"n_clusters": 4, "batch_size": 50, "device": "cpu", "checkpoint_every": 2, **METHODS[name], **changes}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(methods, name)(**settings).fit(quarters(301), run=run, progress=False, resume=resume)


def found_by(model):
    """Labels, confidence, the epochs' losses and all weights."""
    weights = torch.cat([each.double().flatten() for each in model.net_.state_dict().values()])
    return model.labels_, model.confidence_, np.array([record["loss"] for record in model.history_]), weights.numpy()


def fitted(group, rank, name, run=None, changes=None):
    # All clustering is shared, however little it is.
    worth, sharing._WORTH = sharing._WORTH, 1
    try:
        with joined(group):
            return found_by(fit(name, run, **changes or {}))
    finally:
        sharing._WORTH = worth


def interrupted(group, rank, name, run, place):
    """Train until the last rank gets a signal at a place (epoch, step); returns where all stopped."""
    original = loop.train_step

    def step(learner, index, at, **options):
        if rank == group.size() - 1 and (at.epoch, at.step) == place:
            # Noted by this rank alone, and too late for the step at hand.
            os.kill(os.getpid(), signal.SIGTERM)
        return original(learner, index, at, **options)

    loop.train_step = step
    try:
        with joined(group):
            fit(name, run)
    except Interrupted as stopped:
        return stopped.signum
    finally:
        loop.train_step = original
    return None


ALONE = {}


def alone(name):
    """What one process finds; its labels must not hang on the last bits, or nothing could be compared."""
    if name not in ALONE:
        ALONE[name] = found_by(fit(name))
    return ALONE[name]


def numbered(labels):
    """Clusters numbered as they first come: of k-means' starts that end alike the last bits choose."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def assert_close(found, name):
    """The same clusters, and losses and confidences that differ by rounding and what training makes of it."""
    labels, confidence, losses, _ = alone(name)
    assert len(np.unique(labels)) > 1
    np.testing.assert_array_equal(numbered(found[0]), numbered(labels))
    np.testing.assert_allclose(found[1], confidence, atol=0.05)
    # Adam makes steps of one size of gradients that are rounding alone; single steps are held closely below.
    np.testing.assert_allclose(found[2], losses, rtol=0, atol=0.03 * np.abs(losses).max())


@pytest.mark.parametrize("name", METHODS)
def test_labels_on_two_ranks_are_those_of_one(ranks, name):
    found = ranks(2, fitted, name)
    for each in found:
        assert_close(each, name)
        # Between ranks there is no rounding.
        np.testing.assert_array_equal(each[3], found[0][3])


def test_bfloat16_on_two_ranks(ranks):
    """Batch norm of all rows, where its input is bfloat16 and its weights are not."""
    changes = {"precision": "bfloat16", "epochs": 2}
    losses = found_by(fit("DHOG", **changes))[2]
    found = ranks(2, fitted, "DHOG", None, changes)
    for each in found:
        np.testing.assert_allclose(each[2], losses, rtol=0, atol=0.03 * np.abs(losses).max())
        np.testing.assert_array_equal(each[3], found[0][3])


@pytest.mark.parametrize("name", METHODS)
def test_a_run_stops_on_all_ranks_at_once_and_goes_on_on_another_number(ranks, name, tmp_path):
    run = str(tmp_path / "run")
    assert ranks(2, interrupted, name, run, (1, 2)) == [signal.SIGTERM] * 2
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    # The signal came before the step's exchange was prepared, or after: no matter, if it is the same for all.
    assert log[-1]["event"] == "interrupt"
    assert (log[-1]["epoch"], log[-1]["step"]) in ((1, 3), (1, 4))
    for each in ranks(3, fitted, name, run, {"resume": True}):
        assert_close(each, name)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    epochs = [record["epoch"] for record in log if record["event"] == "epoch"]
    assert epochs == list(range(1, len(alone(name)[2]) + 1))
    # Finished: one process loads it, and so do several.
    labels = fit(name, run, resume=True).labels_
    np.testing.assert_array_equal(numbered(labels), numbered(alone(name)[0]))
    for each in ranks(2, fitted, name, run, {"resume": "auto"}):
        np.testing.assert_array_equal(each[0], labels)


class Net(nn.Module):
    """Batch norm of both kinds, dropout, and a weight that acts on the whole batch."""

    def __init__(self):
        super().__init__()
        generator = torch.random.get_rng_state()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout2d(0.25), nn.Flatten(), nn.Linear(108, 6),
            nn.BatchNorm1d(6, affine=False, momentum=None), nn.Dropout(0.5), nn.Linear(6, 4),
        )  # fmt: skip
        self.scale = nn.Parameter(torch.ones(4))
        torch.random.set_rng_state(generator)


class Whole(Learner):
    """A loss that no mean over rows gives: of products between all rows of both views."""

    n_views = 2

    def forward(self, views, index, place):
        found = self.net.body(views.double())
        return found, None, found[: len(index)]

    def loss(self, outputs, index, place):
        rows, none, first = outputs
        assert none is None
        assert torch.equal(first, rows[: len(index)])
        assert len(rows) == 2 * len(index)
        weighed = rows * self.net.scale
        return StepLoss((functional.normalize(weighed) @ first.T).square().mean() + weighed.std() + weighed[0].sum())


class Views(Learner):
    """As learners are that do not know of ranks."""

    def loss(self, outputs, index, place):
        return StepLoss(self.net.body(outputs.double()).square().mean() + self.net.scale.square().sum())


def stepped(group, rank, kind, n):
    """All weights and statistics after three steps of a batch of n images."""
    data, net = ImageData(quarters(40)), Net().double()
    learner = kind(net, torch.optim.SGD(net.parameters(), lr=0.1), data, Identity((1, 8, 8)))
    with joined(group) as team:
        for step in range(3):
            index = torch.randperm(40, generator=torch.Generator().manual_seed(step))[:n]
            train_step(learner, index, Place(0, step, 3, ("main",), 1), full_rates=[0.1], seed=0)
        team.check_same(net, 1)
    return torch.cat([each.double().flatten() for each in net.state_dict().values()]).numpy()


@pytest.mark.parametrize("n", [3, 8, 20])
@pytest.mark.parametrize("kind", [Whole, Views])
def test_steps_in_double_precision_are_those_of_one_rank(ranks, kind, n):
    state = torch.random.get_rng_state()
    expected = stepped(None, 0, kind, n)
    torch.random.set_rng_state(state)
    for world in (1, 2, 3):
        for found in ranks(world, by_name, kind.__name__, n):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)


def by_name(group, rank, kind, n):
    return stepped(group, rank, globals()[kind], n)


def apart(group, rank):
    net = nn.Linear(2, 2)
    nn.init.constant_(net.weight, float(rank == 1))
    with joined(group) as team:
        team.check_same(net, 3)


def test_networks_that_come_apart_are_noticed(ranks):
    for kind, message in ranks.errors(2, apart):
        assert kind == "RuntimeError"
        assert message == "fit: the networks of the 2 ranks have come apart in epoch 3"


def test_a_batch_has_an_image_for_every_rank(ranks):
    for kind, message in ranks.errors(3, fitted, "JULE", None, {"batch_size": 2}):
        assert kind == "ValueError"
        assert "'batch_size' must be at least the number of ranks (3), got batches of 2 images" in message


def refused(group, rank, run):
    with joined(group):
        fit("JULE", run, resume=True)


def test_what_rank_0_refuses_all_ranks_hear(ranks, tmp_path):
    first, second = ranks.errors(2, refused, str(tmp_path))
    assert first[0] == "RunError"
    assert second == ("RankLostError", f"rank 0 has ended: {first[1]}")
