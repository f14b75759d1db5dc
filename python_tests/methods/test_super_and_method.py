"""Super-AND as an estimator: its objective, schedules and rounds, and that a run which dies anywhere ends the same."""

from __future__ import annotations

import json
import os
import sys
import warnings
from unittest import mock

import numpy as np
import pytest
import torch
from support.clidata import pictures, single_thread
from support.kills import Killed, do_at, kill, run_until_killed, terminate
from torch import nn

from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.commands._options import parse_fit
from deepclust_ext.data import load_data
from deepclust_ext.evaluate import acc_hungarian, cluster_features
from deepclust_ext.methods import Method, SuperAND, load_config
from deepclust_ext.methods.configs import config_names
from deepclust_ext.methods.super_and import SuperANDLearner
from deepclust_ext.nn import NETWORKS
from deepclust_ext.ops.cut import smallest_cluster
from deepclust_ext.runs import RunDirectory
from deepclust_ext.training import Place, loop

SMALL = {
    "n_clusters": 4, "network": "toy", "dim": 8, "rounds": 2, "round_epochs": 2, "batch_size": 12,
    "augmentation": "figures", "lr": 0.05, "checkpoint_every": 2, "device": "cpu",
}  # fmt: skip


# A tower as small as can be, with what a resume can get wrong: statistics of batches, and random numbers.
TOWER = (
    "from deepclust_ext.nn.registry import NETWORKS\n"
    "from torch import nn\n"
    "def toy(shape, width):\n"
    "    linear = nn.Linear(shape[0] * shape[1] * shape[2], 12)\n"
    "    return nn.Sequential(nn.Flatten(), linear, nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.1))\n"
    "NETWORKS['toy'] = toy\n"
)


def images(n=40, seed=0):
    return torch.from_numpy(pictures(n, seed)[0])[:, None]


def fit(run=None, *, y=None, resume=False, data=None, **changes):
    """Fit without the warnings that runs this short deserve."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "SuperAND: ", DeepclustWarning)
        model = SuperAND(**{**SMALL, **changes})
        return model.fit(images() if data is None else data, y, run=run, resume=resume, progress=False)


def learner_of(data=None, y=None, **changes):
    model = SuperAND(**{**SMALL, **changes})
    data = load_data(images() if data is None else data, y=y)
    augmentation = model.make_augmentation(data.image_shape)
    return model.make_learner(model.make_net(augmentation.output_shape), data, augmentation)


def place(epoch, learner, step=0):
    return Place(epoch, step, len(learner.images) // 12, learner.passes, learner.p.epochs)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    # Nothing waits for the disk: what is killed here is a run, not the machine.
    with single_thread(), mock.patch.object(os, "fsync"), mock.patch.dict(NETWORKS):
        exec(TOWER)
        yield


# The objective


def spelled_out(v, bank, index, neighbors, tau, weight, augmentation_loss):
    """The three losses row by row, from full vectors over the bank: the mean over the rows (2B, d) of two views."""
    n, total = len(v), 0.0
    for row, i, near in zip(v, index.tolist(), neighbors.tolist(), strict=True):
        logits = bank @ row / tau
        p = logits.softmax(0)
        total = total - p[sorted({i} | {j for j in near if j >= 0})].sum().log()
        others = torch.cat([logits[:i], logits[i + 1 :]]).softmax(0)
        total = total - weight * (others * others.log()).sum()
    if augmentation_loss:
        r = nn.functional.normalize(v @ bank.T, dim=1)
        for a in range(n):
            near = [b for b in range(n) if b != a]
            p = (torch.stack([r[a] @ r[b].detach() for b in near]) / tau).softmax(0)
            for b, probability in zip(near, p, strict=True):
                total = total - (probability.log() if b == (a + n // 2) % n else (1 - probability).log())
    return total / n


@pytest.mark.parametrize("sobel", [True, False])
@pytest.mark.parametrize(
    ("epoch", "changes", "weight"),
    [
        (0, {}, 0.0),
        (4, {"round_epochs": 5}, 0.4),
        (9, {"round_epochs": 5}, 0.4),
        (9, {"round_epochs": 5, "ue_weight": 0.0}, 0.0),
        (9, {"round_epochs": 5, "augmentation_loss": False, "n_neighbors": 3}, 0.4),
        (14, {"round_epochs": 5, "n_neighbors": 0, "ue_weight": 0.0, "augmentation_loss": False}, 0.0),
        (3, {"round_epochs": 5, "initialisation": "instance"}, 0.0),
        (3, {"round_epochs": 5, "initialisation": "instance-ue-aug", "ue_weight": 1.5}, 1.5),
    ],
)
def test_the_loss_is_the_papers(epoch, changes, weight, sobel):
    learner = learner_of(sobel=sobel, rounds=3, **changes)
    # Twice the same forward: no dropout.
    learner.net.eval()
    here, k = place(epoch, learner), learner.p.n_neighbors
    before = here.epoch // learner.p.round_epochs * learner.p.round_epochs
    learner.begin_epoch(place(before, learner))
    index = torch.tensor([5, 0, 39, 17, 8])
    views = learner.augmentation(learner.images.images[index.repeat(2)], generator=torch.Generator().manual_seed(0))
    found = learner.loss(learner.forward(views, index, here), index, here)
    found.loss.backward()
    gradients = [each.grad.clone() for each in learner.net.parameters()]
    learner.net.zero_grad()
    neighbors = torch.full((40, max(k, 1)), -1) if learner.neighbors is None else learner.neighbors
    assert (neighbors >= 0).any() == (epoch == 9)
    with_aug = learner.p.augmentation_loss and not (epoch == 3 and learner.p.initialisation == "instance")
    bank = learner.memory.bank.clone()
    expected = spelled_out(
        learner.net.features(views), bank, index.repeat(2), neighbors[index.repeat(2)], 0.1, weight, with_aug
    )
    torch.testing.assert_close(found.loss, expected, rtol=1e-4, atol=1e-5)
    expected.backward()
    for gradient, parameter in zip(gradients, learner.net.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-3, atol=1e-4)
    assert set(found.terms) == {"and"} | ({"ue"} if weight else set()) | ({"aug"} if with_aug else set())


# Schedules


def test_the_paper_s_learning_rate_and_weight():
    learner = learner_of(**load_config("super-and", "paper-cifar10") | {"network": "toy", "augmentation": "none"})
    assert learner.p.epochs == 1000
    for epoch in range(1000):
        inside = epoch % 200
        rate = 0.03 * (1 if inside < 120 else 0.1 if inside < 160 else 0.01)
        assert 0.03 * learner.rate(place(epoch, learner, step=2)) == pytest.approx(rate)
        assert learner.weights(place(epoch, learner)) == (pytest.approx(0.2 * (inside // 80)), True)
        assert learner.round_of(place(epoch, learner)) == (epoch // 200, inside)


@pytest.mark.parametrize(("initialisation", "first"), [("instance", (0.0, False)), ("instance-ue-aug", (0.4, True))])
def test_an_initialisation_is_a_round_more(initialisation, first):
    learner = learner_of(initialisation=initialisation, rounds=3, round_epochs=200)
    assert learner.p.epochs == 800
    assert [learner.round_of(place(epoch, learner))[0] for epoch in (0, 199, 200, 799)] == [-1, -1, 0, 2]
    assert learner.weights(place(199, learner)) == first
    assert learner.weights(place(399, learner)) == (0.4, True)
    for epoch in (0, 200):
        learner.begin_epoch(place(epoch, learner))
        assert learner.neighbors is None
    learner.begin_epoch(place(400, learner))
    assert learner.neighbors is not None


def test_schedules_start_anew_in_every_round():
    rates = {}
    for schedule in ("steps", "cosine", "constant"):
        learner = learner_of(schedule=schedule, round_epochs=5, rounds=2)
        rates[schedule] = [learner.rate(place(epoch, learner)) for epoch in range(10)]
        assert rates[schedule][:5] == rates[schedule][5:]
    assert rates["constant"] == [1.0] * 10
    assert rates["steps"][:5] == pytest.approx([1, 1, 1, 0.1, 0.01])
    assert rates["cosine"][:5] == sorted(rates["cosine"][:5], reverse=True)


# Rounds and the bank


def test_the_curriculum():
    learner = learner_of(rounds=5, y=np.arange(40) % 4)
    shares = []
    for epoch in range(10):
        record = learner.begin_epoch(place(epoch, learner))
        assert record["round"] == epoch // 2
        assert ("anchors" in record) == (epoch % 2 == 0 and epoch > 0)
        if "anchors" in record:
            given = (learner.neighbors >= 0).all(1)
            assert int(given.sum()) == record["anchors"]
            same = torch.arange(40)[given] % 4 == learner.neighbors[given, 0] % 4
            assert record["anchor_consistency"] == pytest.approx(float(same.double().mean()))
            shares.append(record["anchors"] / 40)
    assert shares == [0.25, 0.5, 0.75, 1.0]


def test_neighbours_are_looked_for_once_a_round_in_the_bank_that_it_begins_with():
    learner = learner_of(rounds=3)
    learner.begin_epoch(place(2, learner))
    first = learner.neighbors.clone()
    learner.memory.bank.copy_(nn.functional.normalize(torch.randn(40, 8, generator=torch.Generator().manual_seed(3))))
    learner.begin_epoch(place(3, learner))
    assert torch.equal(learner.neighbors, first)
    learner.begin_epoch(place(4, learner))
    similar = learner.memory.bank @ learner.memory.bank.T
    similar.fill_diagonal_(-2)
    assert torch.equal(learner.neighbors[:, 0], similar.argmax(1))


def test_instance_discrimination_has_no_neighbours():
    learner = learner_of(n_neighbors=0)
    for epoch in range(6):
        assert "anchors" not in learner.begin_epoch(place(epoch, learner))
    assert learner.neighbors is None


def test_the_bank_moves_after_the_step_and_only_where_it_was(monkeypatch):
    seen = []
    loss, after = SuperANDLearner.loss, SuperANDLearner.after_step

    def watched_loss(self, views, index, here):
        found = loss(self, views, index, here)
        seen.append((index, self.memory.bank.clone(), self._embedded.clone()))
        return found

    def watched_after(self, index, here):
        _, bank, embedded = seen[-1]
        assert torch.equal(self.memory.bank, bank)
        after(self, index, here)
        expected = bank.clone()
        for part in embedded.chunk(2):
            expected[index] = nn.functional.normalize(0.7 * expected[index] + 0.3 * part, dim=1)
        torch.testing.assert_close(self.memory.bank, expected)
        others = torch.ones(40, dtype=torch.bool)
        others[index] = False
        assert torch.equal(self.memory.bank[others], bank[others])

    monkeypatch.setattr(SuperANDLearner, "loss", watched_loss)
    monkeypatch.setattr(SuperANDLearner, "after_step", watched_after)
    fit(bank_momentum=0.7, rounds=1)
    assert len(seen) == 6
    assert seen[0][1].norm(dim=1).mean() == pytest.approx(1, abs=0.2)


# Runs


def test_it_finds_the_kinds_of_images():
    y = np.arange(200) % 4
    model = fit(data=images(200), y=y, rounds=3, round_epochs=4, batch_size=20)
    assert acc_hungarian(model.labels_, y) > 0.9
    assert acc_hungarian(model.predict(images(80, seed=5)), y[:80]) > 0.9
    assert model.metrics_["conclusion"]["knn_accuracy"] > 0.9
    embeddings = model.transform(images(200))
    assert embeddings.shape == (200, 8)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    assert np.array_equal(model.predict(images(200)), model.labels_)
    centroids = model.net_.space.centroids.numpy()
    nearest = ((embeddings[:, None] - centroids) ** 2).sum(2).argmin(1)
    assert np.array_equal(nearest, model.labels_)
    ends = [record for record in model.history_ if "knn_accuracy" in record]
    assert [record["epoch"] for record in ends] == [4, 8, 12]
    for record in ends:
        assert {"consistency", "top5", "unification_entropy"} <= record.keys()
        assert 0 < record["unification_entropy"] < np.log(199)


def test_clusters_may_be_those_of_a_graph_of_neighbours():
    """Found in the same embedding; new images go to the nearest mean."""
    y = np.arange(200) % 4
    options = {"rounds": 3, "round_epochs": 4, "batch_size": 20}
    balls, model = (fit(data=images(200), y=y, clusterer=name, **options) for name in ("kmeans", "affinity"))
    embeddings = model.transform(images(200))
    assert np.array_equal(embeddings, balls.transform(images(200)))
    rows = embeddings - embeddings.mean(0, dtype=np.float64)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    merged = cluster_features(rows, 4, clusterer="affinity", min_size=smallest_cluster(200, 4))
    assert np.array_equal(model.labels_, merged)
    means = np.stack([embeddings[merged == cluster].mean(0) for cluster in range(4)])
    np.testing.assert_allclose(model.net_.space.centroids.numpy(), means, atol=1e-6)
    assert acc_hungarian(model.labels_, y) > 0.9
    assert acc_hungarian(model.predict(images(80, seed=5)), y[:80]) > 0.9


def test_labels_never_train():
    plain, scored = fit(), fit(y=np.arange(40) % 7)
    for name, value in plain.net_.state_dict().items():
        assert torch.equal(value, scored.net_.state_dict()[name])
    assert "knn_accuracy" not in plain.metrics_["conclusion"]


def test_a_module_of_ones_own_is_the_only_tower():
    own = nn.Sequential(nn.Flatten(), nn.Linear(64, 6))
    before = [each.clone() for each in own.parameters()]
    model = fit(network=own, sobel=False)
    assert all(torch.equal(a, b) for a, b in zip(before, own.parameters(), strict=True))
    assert model.net_.edges is None
    with pytest.raises(ValueError, match="SuperAND: 'network' must be a name where 'sobel' is True"):
        fit(network=own)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"n_neighbors": 40}, ValueError, r"'n_neighbors' must be below the number of images \(40\), got 40"),
        ({"n_neighbors": -1}, ValueError, "'n_neighbors' must be at least 0"),
        ({"rounds": 0}, ValueError, "'rounds' must be at least 1"),
        ({"round_epochs": 0}, ValueError, "'round_epochs' must be at least 1"),
        ({"temperature": 0.0}, ValueError, "'temperature' must be finite and above 0"),
        ({"bank_momentum": 1.0}, ValueError, "'bank_momentum' must be finite, at least 0 and below 1"),
        ({"ue_weight": -0.2}, ValueError, "'ue_weight' must be finite and at least 0"),
        ({"initialisation": "and"}, ValueError, "'initialisation' must be one of"),
        ({"schedule": "step"}, ValueError, "'schedule' must be one of"),
        ({"sobel": None}, TypeError, "'sobel' must be True or False"),
        ({"network": "resnet"}, ValueError, "'network' must be one of"),
        ({"augmentation": lambda image: image.repeat(3, 1, 1)}, ValueError, "'augmentation' must keep .* channels"),
        ({"data": images().repeat(1, 2, 1, 1)}, ValueError, "must be|must have"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_written(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        fit(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_the_family_on_the_command_line():
    found = {name: parse_fit(name, ["--data", "x", "--out", "y"]).build() for name in ("super-and", "and", "instance")}
    switches = {
        name: (each.n_neighbors, each.ue_weight, each.augmentation_loss, each.sobel) for name, each in found.items()
    }
    assert switches == {
        "super-and": (1, 0.2, True, True), "and": (1, 0.0, False, False), "instance": (0, 0.0, False, False),
    }  # fmt: skip
    small = parse_fit("and", ["--data", "x", "--out", "y", "--config", "small"]).build()
    assert (small.sobel, small.width) == (False, load_config("super-and", "small")["width"])


@pytest.mark.parametrize("name", config_names("super-and"))
def test_shipped_configurations_can_be_built(name):
    model = SuperAND(**load_config(SuperAND, name) | {"width": 0.25})
    model.check_parameters()
    model.make_net(model.make_augmentation((3, 32, 32)).output_shape)
    assert {"small", "paper-cifar10"} <= set(config_names("super-and"))


def test_a_runs_own_configuration_is_read(tmp_path):
    fit(tmp_path / "run", rounds=1, round_epochs=1)
    assert load_config("super-and", tmp_path / "run" / "config.yaml")["dim"] == 8


# Saving and resuming


def state_of(folder):
    return RunDirectory(folder, mode="read").checkpoints.load()


def assert_same(folder, reference):
    for name in ("labels.csv", "embeddings.npz"):
        assert (folder / name).read_bytes() == (reference / name).read_bytes()
    found, expected = state_of(folder), state_of(reference)
    for part in ("place", "net", "optimizer", "own"):
        assert_equal(found[part], expected[part], part)
    assert epochs_of(folder) == epochs_of(reference)


def assert_equal(found, expected, where):
    """Nested tensors and values have the same bits."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key, value in expected.items():
            assert_equal(found[key], value, f"{where}.{key}")
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected), where
    else:
        assert found == expected, where


def epochs_of(folder):
    timed = ("seconds", "augmentation_share", "time")
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in timed} for line in lines if line["event"] == "epoch"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference") / "run"
    return folder, fit(folder)


N_STEPS = 2 * 2 * (40 // 12)


@pytest.mark.parametrize("step", range(1, N_STEPS + 1))
def test_a_run_killed_at_any_step_ends_the_same(tmp_path, monkeypatch, reference, step):
    do_at(monkeypatch, loop, "train_step", step, kill)
    with pytest.raises(Killed):
        fit(tmp_path / "run")
    monkeypatch.undo()
    fit(tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", reference[0])


def test_a_run_that_a_signal_stops_after_every_step_ends_the_same(tmp_path, monkeypatch, reference):
    """What one resume leaves behind the next must not need: bank, round and neighbours all come from the checkpoint."""
    for step in range(N_STEPS):
        do_at(monkeypatch, loop, "train_step", 1, terminate)
        with pytest.raises(SystemExit):
            fit(tmp_path / "run", resume=step > 0)
        monkeypatch.undo()
        own = state_of(tmp_path / "run")["own"]
        assert (own["neighbors"] is None) == (step < N_STEPS // 2)
    fit(tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", reference[0])


@pytest.mark.parametrize(
    ("where", "call"), [("discover", 1), ("bank_figures", 1), ("bank_figures", 2), ("all_features", 1)]
)
def test_a_run_killed_between_steps_ends_the_same(tmp_path, monkeypatch, reference, where, call):
    do_at(monkeypatch, sys.modules["deepclust_ext.methods.super_and"], where, call, kill)
    with pytest.raises(Killed):
        fit(tmp_path / "run")
    monkeypatch.undo()
    fit(tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", reference[0])


def test_a_process_that_is_killed_in_mid_round(tmp_path, reference):
    """A real SIGKILL, sent from inside the 8th step's update of the bank."""
    script = (
        f"{TOWER}"
        "from deepclust_ext.methods import SuperAND\n"
        "from deepclust_ext.methods.super_and import SuperANDLearner\n"
        "after, calls = SuperANDLearner.after_step, []\n"
        "def dying(*a):\n"
        "    calls.append(after(*a))\n"
        "    if len(calls) == 8: os.kill(os.getpid(), signal.SIGKILL)\n"
        "SuperANDLearner.after_step = dying\n"
        f"SuperAND(**{SMALL!r}).fit(images, run=run)"
    )
    run_until_killed(tmp_path, images(), script)
    fit(tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", reference[0])


def test_it_is_saved_without_its_bank_and_loaded(tmp_path, reference):
    model = reference[1]
    model.save(tmp_path / "model.pt")
    assert (tmp_path / "model.pt").exists()
    assert set(state_of(reference[0])["own"]) == {"memory", "neighbors"}
    assert not any(value.shape == (40, 8) for value in model.net_.state_dict().values())
    for loaded in (Method.load(tmp_path / "model.pt"), SuperAND.load(reference[0])):
        for name in ("predict", "predict_proba", "transform"):
            assert np.array_equal(getattr(loaded, name)(images(9, 5)), getattr(model, name)(images(9, 5)))
        assert np.array_equal(loaded.labels_, model.labels_)
