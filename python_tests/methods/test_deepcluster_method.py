"""DeepCluster as an estimator: the cycle, what it logs, and that a run which dies anywhere ends the same."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
import warnings

import numpy as np
import pytest
import torch
from support.clidata import pictures, single_thread
from support.kills import Killed, do_at, kill, run_until_killed, stop_at, terminate
from torch import nn

import deepclust_ext
from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.data import load_data, make_augmentation
from deepclust_ext.evaluate import churn, nmi
from deepclust_ext.methods import DeepCluster, Method, load_config
from deepclust_ext.methods.configs import config_names
from deepclust_ext.methods.deepcluster import DeepClusterLearner
from deepclust_ext.nn import PseudoLabelNet, Sobel, build_network
from deepclust_ext.nn.feature_space import FeatureSpace
from deepclust_ext.training.inference import all_features
from deepclust_ext.training.visits import uniform_over_clusters

SMALL = {
    "n_clusters": 4, "network": "tiny8", "width": 0.25, "batch_size": 40, "epochs": 5, "lr": 0.05,
    "checkpoint_every": 2, "device": "cpu",
}  # fmt: skip


def images(n=200, seed=0):
    return torch.from_numpy(pictures(n, seed)[0])[:, None]


def fit(run=None, *, y=None, resume=False, data=None, **changes):
    """Fit without the warnings that runs this short deserve."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "DeepCluster: ", DeepclustWarning)
        model = DeepCluster(**{**SMALL, **changes})
        return model.fit(images() if data is None else data, y, run=run, resume=resume, progress=False)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with single_thread():
        yield


@pytest.fixture
def clusterings(monkeypatch):
    """Every clustering of the fits in a test: cycle, pseudo-labels, and the head just before."""
    seen = []
    original = DeepClusterLearner._cluster

    def watch(self, net, cycle):
        before = net.head.weight.detach().clone()
        labels, figures = original(self, net, cycle)
        seen.append((cycle, labels.clone(), before))
        return labels, figures

    monkeypatch.setattr(DeepClusterLearner, "_cluster", watch)
    return seen


# The cycle


def test_the_labels_are_k_means_of_the_prepared_features():
    model = fit(n_components=6)
    features = all_features(model.net_, model.augmentation_, images())
    space = FeatureSpace(features.shape[1], 4, 6)
    space.load_state_dict(model.net_.space.state_dict())
    prepared, _ = deepclust_ext.pca_whiten(features, 6)
    torch.testing.assert_close(space.prepare(features), prepared)
    nearest = deepclust_ext.kmeans_assign(prepared, space.centroids).labels
    assert np.array_equal(model.labels_, nearest.numpy())
    assert np.array_equal(model.predict(images()), model.labels_)
    assert np.array_equal(model.predict(images()[:7]), model.labels_[:7])
    nearest_two = torch.cdist(prepared.double(), space.centroids.double()).sort(1).values
    np.testing.assert_allclose(model.confidence_, 1 - nearest_two[:, 0] / nearest_two[:, 1], atol=1e-4)
    np.testing.assert_allclose(model.predict_proba(images()).sum(1), 1, rtol=1e-5)


def test_training_lowers_the_loss_on_the_pseudo_labels():
    model = fit(halt_after=1, epochs=10, lr=0.2, reset_head_after_halt=False, augmentation="none")
    losses = [record["loss"] for record in model.history_]
    assert losses[-1] < 0.5 * losses[0]
    assert model.history_[-1]["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("options", "cycles"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"halt_after": 1}, [0, 5]),
        ({"halt_after": 3}, [0, 1, 2, 5]),
        ({"halt_after": 9}, [0, 1, 2, 3, 4, 5]),
        ({"cycle_epochs": 2}, [0, 1, 2, 3]),
        ({"cycle_epochs": 2, "halt_after": 2}, [0, 1, 3]),
    ],
)
def test_when_it_clusters(clusterings, options, cycles):
    model = fit(**options)
    assert [cycle for cycle, *_ in clusterings] == cycles
    logged = [record["cycle"] for record in model.history_ if "cycle" in record]
    assert logged == cycles[:-1]
    assert model.metrics_["conclusion"]["cycle"] == cycles[-1]


@pytest.mark.parametrize(("reset", "heads"), [(True, 5), (False, 2)])
def test_the_head_starts_anew_in_each_cycle(monkeypatch, reset, heads):
    drawn = []
    original = PseudoLabelNet.reset_head

    def watch(self, generator):
        original(self, generator)
        drawn.append(self.head.weight.detach().clone())

    fit(halt_after=2, reset_head_after_halt=reset, epochs=1)
    monkeypatch.setattr(PseudoLabelNet, "reset_head", watch)
    fit(halt_after=2, reset_head_after_halt=reset, momentum=0.9)
    # The first is drawn as the network is built.
    assert len(drawn) == heads + 1
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(drawn))
    assert 0.005 < torch.cat(drawn).std() < 0.02


def test_a_new_head_has_no_momentum(monkeypatch):
    seen = []
    original = DeepClusterLearner.begin_epoch

    def watch(self, place):
        figures = original(self, place)
        state = self.optimizer.state
        seen.append((
            any(parameter in state for parameter in self.net.head.parameters()),
            any(parameter in state for parameter in self.net.trunk.parameters()),
        ))  # fmt: skip
        return figures

    monkeypatch.setattr(DeepClusterLearner, "begin_epoch", watch)
    fit(epochs=3, momentum=0.9)
    assert seen == [(False, False), (False, True), (False, True)]


def test_the_head_can_have_its_own_optimizer():
    model = DeepCluster(**SMALL, momentum=0.9, head_lr=0.01, head_momentum=0.0)
    net = model.make_net((1, 8, 8))
    learner = model.make_learner(net, load_data(images()), make_augmentation("flip", image_shape=(1, 8, 8)))
    body, head = learner.optimizer.param_groups
    assert (body["lr"], body["momentum"], head["lr"], head["momentum"]) == (0.05, 0.9, 0.01, 0.0)
    assert {id(p) for p in head["params"]} == {id(p) for p in net.head.parameters()}
    assert len(body["params"]) + len(head["params"]) == len(list(net.parameters()))
    changed = fit(head_lr=0.01, epochs=2)
    assert changed.history_[-1]["loss"] != fit(epochs=2).history_[-1]["loss"]


def test_what_a_cycle_logs(clusterings):
    kinds = torch.arange(200) % 4
    model = fit(y=kinds.numpy(), cycle_epochs=2)
    before = None
    for (cycle, labels, _), record in zip(clusterings, model.history_[::2], strict=False):
        counts = torch.bincount(labels, minlength=4).double()
        assert record["cycle"] == cycle
        assert record["nmi_labels"] == nmi(labels.numpy(), kinds.numpy())
        assert record["imbalance"] == pytest.approx(float(4 * counts.square().sum() / 200**2))
        assert record["clusters_used"] == [int((counts > 0).sum())]
        assert record["largest_share"] == [pytest.approx(float(counts.max()) / 200, abs=1e-6)]
        assert record["empty"] == int((counts == 0).sum())
        if before is not None:
            assert record["nmi_previous"] == nmi(before.numpy(), labels.numpy())
            assert record["churn"] == churn(before.numpy(), labels.numpy())
        before = labels
    assert "cycle" not in model.history_[1]
    assert "nmi_views" not in model.history_[0]


def test_more_clusters_than_kinds_of_images_are_counted():
    repeated = images(8).repeat(25, 1, 1, 1)
    with pytest.warns(DeepclustWarning, match="collapsed"):
        model = DeepCluster(**{**SMALL, "n_clusters": 20, "epochs": 2}).fit(repeated, progress=False)
    assert model.history_[0]["empty"] >= 12
    assert model.history_[0]["clusters_used"][0] <= 8
    assert model.n_clusters_ <= 8


def test_very_many_clusters_are_neither_matched_nor_more_than_the_sample_of_the_baseline(monkeypatch):
    assert "churn" in fit(epochs=1).metrics_["conclusion"]
    monkeypatch.setattr("deepclust_ext.evaluate.partition.CHURN_CLUSTERS", 3)
    monkeypatch.setattr("deepclust_ext.training.results.BASELINE_IMAGES", 3)
    model = fit(y=np.arange(200) % 7, epochs=1)
    found = model.metrics_["conclusion"]
    assert "nmi_previous" in found
    assert "churn" not in found
    assert model.metrics_["kmeans_pixels"]["n_images"] == 4


@pytest.mark.parametrize(("limit", "starts"), [(1000, 10), (8, 2), (3, 1)])
def test_the_baseline_starts_less_often_with_many_clusters(monkeypatch, limit, starts):
    monkeypatch.setattr("deepclust_ext.training.results.BASELINE_CLUSTERS", limit)
    assert fit(y=np.arange(200) % 7, epochs=1).metrics_["kmeans_pixels"]["n_init"] == starts


def test_labels_never_train():
    plain, scored = fit(), fit(y=np.arange(200) % 7)
    for name, value in plain.net_.state_dict().items():
        assert torch.equal(value, scored.net_.state_dict()[name])


def test_features_that_are_not_finite_are_reported():
    with pytest.raises(FloatingPointError, match=r"NaN or infinite; try a lower 'lr'|the loss became"):
        fit(lr=1e30)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("n_components", [None, 2])
def test_one_feature_that_cannot_be_brought_to_the_sphere_is_enough(value, n_components):
    features = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    features[31, 2] = value
    with pytest.raises(FloatingPointError, match="features became NaN or infinite"):
        FeatureSpace(4, 3, n_components).fit(features, seed=0)


# Sampling


@pytest.mark.parametrize("sizes", [[50, 50], [90, 9, 1], [3], [1, 0, 0, 7, 92], [1] * 10])
def test_every_cluster_is_seen_equally_often(sizes):
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))]
    visits = uniform_over_clusters(labels, torch.Generator().manual_seed(1))
    assert visits.shape == labels.shape
    filled = [k for k, size in enumerate(sizes) if size]
    share = len(labels) // len(filled) + 1
    counts = torch.bincount(labels[visits], minlength=len(sizes))
    for k, size in enumerate(sizes):
        # `len(filled)` draws at most are left out at the end.
        assert (share - len(filled) <= counts[k] <= share) if size else counts[k] == 0
        if size > share:
            seen = visits[labels[visits] == k]
            assert len(seen.unique()) == len(seen)
    again = uniform_over_clusters(labels, torch.Generator().manual_seed(1))
    assert torch.equal(visits, again)


def test_draws_reach_every_member_and_are_shuffled():
    labels = torch.tensor([0] * 990 + [1] * 10)
    visits = uniform_over_clusters(labels, torch.Generator().manual_seed(0))
    drawn = torch.bincount(visits[labels[visits] == 1] - 990, minlength=10)
    assert drawn.min() > 20
    assert 0.4 < labels[visits][:500].float().mean() < 0.6
    assert visits[labels[visits] == 0].max() > 900


def test_uniform_sampling_can_be_left_out(monkeypatch):
    counts = []
    original = DeepClusterLearner.visits
    monkeypatch.setattr(
        DeepClusterLearner,
        "visits",
        lambda self, place, g: counts.append(original(self, place, g).unique().numel()) or original(self, place, g),
    )
    fit(uniform_sampling=False, epochs=1)
    assert counts == [200]


# The network


def test_a_default_device_of_the_callers_changes_nothing():
    """As a program does that works on a GPU; "meta" shows every tensor that would go there."""
    want = fit()
    with torch.device("meta"):
        model = fit()
        assert np.array_equal(model.labels_, want.labels_)
        assert np.array_equal(model.predict(images()), want.labels_)


def test_images_are_standardised_and_edges_taken():
    trunk = build_network("tiny8", image_shape=(2, 8, 8), n_heads=1, width=0.25)
    net = PseudoLabelNet(trunk, (3, 8, 8), 4, sobel=True).eval()
    colour = torch.randint(0, 256, (5000, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    colour[:, 2] = 7
    net.standardise(colour)
    pixels = colour / 255
    torch.testing.assert_close(net.pixel_mean.flatten(), pixels.mean((0, 2, 3)))
    torch.testing.assert_close(net.pixel_deviation.flatten()[:2], pixels[:, :2].std((0, 2, 3)), rtol=1e-4, atol=0)
    assert net.pixel_deviation.flatten()[2] == 1
    batch = pixels[:5]
    expected = trunk.eval()(Sobel()((batch - net.pixel_mean) / net.pixel_deviation))[-1]
    assert torch.equal(net.features(batch), expected)


def test_standardising_is_cut_by_pixels_too(monkeypatch):
    colour = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8)
    found = []
    for pixels in (2**25, 3 * 8 * 8 * 7, 1):
        monkeypatch.setattr("deepclust_ext.nn.standardised._PIXELS", pixels)
        net = PseudoLabelNet(nn.Flatten(), (3, 8, 8), 4, sobel=False)
        net.standardise(colour)
        found.append(torch.cat([net.pixel_mean, net.pixel_deviation]))
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])


def test_the_head_sees_the_relu_of_a_feature_that_has_none():
    plain = PseudoLabelNet(build_network("lenet5", image_shape=(1, 28, 28)), (1, 28, 28), 3, sobel=False).eval()
    views = torch.rand(4, 1, 28, 28)
    features = plain.features(views)
    assert (features < 0).any()
    assert torch.equal(plain(views), plain.head(torch.relu(features)))
    bare = PseudoLabelNet(nn.Sequential(nn.Flatten(), nn.Linear(784, 6)), (1, 28, 28), 3, sobel=False).eval()
    assert torch.equal(bare(views), bare.head(bare.features(views)))


@pytest.mark.parametrize("network", ["own", "resnet18"])
def test_any_network_can_be_trained(network):
    own = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 12))
    before = [p.clone() for p in own.parameters()]
    model = fit(network=own if network == "own" else network, epochs=1, width=1.0 if network == "own" else 0.25)
    assert all(torch.equal(a, b) for a, b in zip(before, own.parameters(), strict=True))
    assert len(model.labels_) == 200


@pytest.mark.parametrize(
    ("shape", "layers"),
    [
        ((1, 28, 28), ["conv1", "conv2"]),
        ((1, 8, 8), []),
        ((3, 32, 32), [f"conv{number}" for number in range(1, 6)]),
        ((3, 64, 64), [f"conv{number}" for number in range(1, 6)]),
    ],
)
def test_a_network_is_chosen_by_the_images(shape, layers):
    net = DeepCluster(n_clusters=3, width=0.1).make_net(shape)
    assert list(getattr(net, "probe_layers", [])) == [f"trunk.{layer}" for layer in layers]


# Parameters


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"n_components": 0}, ValueError, "'n_components' must be at least 1"),
        ({"n_components": 1000}, ValueError, "'n_components' must be at most"),
        ({"halt_after": 0}, ValueError, "'halt_after' must be at least 1"),
        ({"halt_after": 1.5}, TypeError, "'halt_after' must be a whole number"),
        ({"cycle_epochs": 0}, ValueError, "'cycle_epochs' must be at least 1"),
        ({"sobel": 1}, TypeError, "'sobel' must be True or False"),
        ({"momentum": 1.0}, ValueError, "'momentum' must be finite, at least 0 and below 1"),
        ({"head_momentum": -0.1}, ValueError, "'head_momentum' must be finite, at least 0 and below 1"),
        ({"head_momentum": 0.5, "optimizer": "adam"}, ValueError, "'head_momentum' needs 'optimizer' to be 'sgd'"),
        ({"head_lr": 0.0}, ValueError, "'head_lr' must be finite and above 0"),
        ({"kmeans_init": "best"}, ValueError, "'kmeans_init' must be one of"),
        ({"schedule": np.array(["cosine"])}, ValueError, "'schedule' must be one of"),
        ({"kmeans_iterations": 0}, ValueError, "'kmeans_iterations' must be at least 1"),
        ({"n_clusters": 201}, ValueError, "'n_clusters' must be at most the number of images"),
        ({"network": "lenet"}, ValueError, "'network' must be one of"),
        ({"augmentation": lambda image: image.repeat(3, 1, 1)}, ValueError, "'augmentation' must keep .* channels"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_written(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        fit(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_shipped_configurations_can_be_built():
    assert set(config_names("deepcluster")) == {"alexnet", "cifar10", "fashion-mnist", "figures", "small"}
    for name, shape in (
        ("small", (1, 28, 28)),
        ("figures", (1, 28, 28)),
        ("fashion-mnist", (1, 28, 28)),
        ("cifar10", (3, 32, 32)),
        ("alexnet", (3, 224, 224)),
    ):
        model = DeepCluster(**load_config("deepcluster", name))
        model.check_parameters()
        model.make_net(model.make_augmentation(shape).output_shape)


# Saving and resuming


def records(folder):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    timed = ("seconds", "clustering_seconds", "augmentation_share", "evaluation_seconds", "time")
    return [{k: v for k, v in line.items() if k not in timed} for line in lines if line["event"] == "epoch"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference") / "run"
    return folder, fit(folder, halt_after=4, momentum=0.9)


def assert_same(folder, reference):
    for name in ("labels.csv", "embeddings.npz"):
        assert (folder / name).read_bytes() == (reference[0] / name).read_bytes()
    assert records(folder) == records(reference[0])


@pytest.mark.parametrize(
    ("where", "name", "call"),
    [
        *(("deepclust_ext.training.sharing", "kmeans", call) for call in (1, 2, 4, 5)),
        *(("deepclust_ext.methods.deepcluster", "all_features", call) for call in (1, 3)),
        ("deepclust_ext.methods.deepcluster", "uniform_over_clusters", 5),
        ("deepclust_ext.training.results", "label_heads", 1),
    ],
)
def test_a_run_killed_inside_a_clustering_ends_the_same(tmp_path, monkeypatch, reference, where, name, call):
    do_at(monkeypatch, sys.modules[where], name, call, kill)
    with pytest.raises(Killed):
        fit(tmp_path / "run", halt_after=4, momentum=0.9)
    monkeypatch.undo()
    model = fit(tmp_path / "run", halt_after=4, momentum=0.9, resume=True)
    assert_same(tmp_path / "run", reference)
    assert model.metrics_["conclusion"].keys() == reference[1].metrics_["conclusion"].keys()


@pytest.mark.parametrize("step", [(0, 2), (3, 1), (4, 3)])
def test_a_signal_saves_in_the_middle_of_an_epoch(tmp_path, monkeypatch, reference, step):
    stop_at(monkeypatch, *step, terminate)
    with pytest.raises(SystemExit):
        fit(tmp_path / "run", halt_after=4, momentum=0.9)
    monkeypatch.undo()
    fit(tmp_path / "run", halt_after=4, momentum=0.9, resume=True)
    assert_same(tmp_path / "run", reference)


def test_a_process_that_is_killed_while_it_clusters(tmp_path, reference):
    """A real SIGKILL, sent from inside k-means of the third cycle."""
    script = (
        "from deepclust_ext.methods import DeepCluster\n"
        "from deepclust_ext.training import sharing\n"
        "kmeans, calls = sharing.kmeans, []\n"
        "def dying(*a, **k):\n"
        "    calls.append(0)\n"
        "    result = kmeans(*a, **k)\n"
        "    return result if len(calls) < 3 else os.kill(os.getpid(), signal.SIGKILL)\n"
        "sharing.kmeans = dying\n"
        f"DeepCluster(**{ {**SMALL, 'halt_after': 4, 'momentum': 0.9}!r}).fit(images, run=run)"
    )
    run_until_killed(tmp_path, images(), script)
    fit(tmp_path / "run", halt_after=4, momentum=0.9, resume=True)
    assert_same(tmp_path / "run", reference)


@pytest.mark.parametrize("name", ["labels.csv", "metrics.json", "embeddings.npz"])
def test_results_that_are_gone_are_made_again(tmp_path, reference, name):
    folder = tmp_path / "run"
    shutil.copytree(reference[0], folder)
    (folder / name).unlink()
    model = fit(folder, halt_after=4, momentum=0.9, resume=True)
    assert_same(folder, reference)
    again, first = (dict(one.metrics_["conclusion"]) for one in (model, reference[1]))
    assert model.metrics_["seconds"] == json.loads((reference[0] / "metrics.json").read_text())["seconds"]
    del again["clustering_seconds"], first["clustering_seconds"]
    assert again == first
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    (logged,) = [line for line in lines if line["event"] == "conclusion"]
    assert {key: logged[key] for key in first} == first


def test_it_is_saved_and_loaded(tmp_path, reference):
    model = reference[1]
    model.save(tmp_path / "model.pt")
    for loaded in (Method.load(tmp_path / "model.pt"), DeepCluster.load(reference[0])):
        assert np.array_equal(loaded.predict(images(60, seed=5)), model.predict(images(60, seed=5)))
        assert np.array_equal(loaded.labels_, model.labels_)


def test_threads_of_another_number_change_nothing_in_the_clustering():
    features = torch.randn(3000, 12, generator=torch.Generator().manual_seed(0))
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(FeatureSpace(12, 7, None).fit(features, seed=3))
    torch.set_num_threads(1)
    assert torch.equal(found[0].labels, found[1].labels)
    assert torch.equal(found[0].centroids, found[1].centroids)
