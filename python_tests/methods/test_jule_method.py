"""JULE as an estimator: the order of merging and training, its two results, and that a killed run ends the same."""

from __future__ import annotations

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
from torch.nn.functional import normalize

import deepclust_ext
from deepclust_ext import affinity_graph, agglomerate, cut, initial_clusters, knn
from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.data import load_data
from deepclust_ext.evaluate import acc_hungarian, scores
from deepclust_ext.methods import JULE, Method, load_config
from deepclust_ext.methods.configs import config_names
from deepclust_ext.methods.jule_learner import JULELearner
from deepclust_ext.training import Place, loop
from deepclust_ext.training.inference import all_features

SMALL = {
    "n_clusters": 4, "width": 0.2, "dim": 8, "n_neighbors": 8, "eta": 0.4, "period_epochs": 2, "batch_size": 30,
    "lr": 0.05, "device": "cpu",
}  # fmt: skip


def images(n=120, seed=0):
    return torch.from_numpy(pictures(n, seed)[0])[:, None]


def fit(run=None, *, y=None, resume=False, data=None, **changes):
    """Fit without the warnings that runs this short deserve."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "JULE: ", DeepclustWarning)
        model = JULE(**{**SMALL, **changes})
        return model.fit(images() if data is None else data, y, run=run, resume=resume, progress=False)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with single_thread():
        yield


@pytest.fixture
def watched(monkeypatch):
    """Every epoch's clusters as its steps see them, with the features and clusters when it began."""
    seen = []
    begin, loss = JULELearner.begin_epoch, JULELearner.loss

    def beginning(self, place):
        before = self.labels.clone()
        features = all_features(self.net, self.augmentation, self.images.images)
        figures = begin(self, place)
        seen.append({"place": place, "before": before, "features": features, "trained": [], "learner": self})
        return figures

    def step(self, views, index, place):
        seen[-1]["trained"].append(self.labels.clone())
        return loss(self, views, index, place)

    monkeypatch.setattr(JULELearner, "begin_epoch", beginning)
    monkeypatch.setattr(JULELearner, "loss", step)
    return seen


def merged(features, n_clusters, labels=None, k=8):
    return agglomerate(affinity_graph(features, k), n_clusters, labels=labels, x=features)


# The recipe


def test_the_order_of_merging_and_training(watched):
    model = fit()
    pixels = normalize(images().float().flatten(1) / 255, dim=1)
    chains = initial_clusters(knn(pixels, 1).indices)
    counts = [int(chains.max()) + 1]
    expected = chains
    for epoch, each in enumerate(watched):
        assert each["place"].epoch == epoch
        if epoch and epoch % 2 == 0:
            # Merges are of the clusters before, by the features of the weights that were trained on them.
            assert torch.equal(each["before"], expected)
            count = max(4, counts[-1] - int(np.ceil(0.4 * counts[-1])))
            expected = merged(each["features"], count, expected).labels
            counts.append(count)
        assert each["trained"]
        for labels in each["trained"]:
            assert torch.equal(labels, expected)
    # The next merge would be the last one: nothing is trained on its clusters.
    assert len(watched) == 2 * len(counts)
    assert counts[-1] > 4
    assert counts[-1] - int(np.ceil(0.4 * counts[-1])) <= 4
    assert counts == sorted(counts, reverse=True)
    assert len(counts) >= 2
    assert model.metrics_["conclusion"]["clusters"] == counts
    assert [record["clusters"] for record in model.history_] == [count for count in counts for _ in range(2)]
    assert model.metrics_["epochs"] == len(model.history_) < model.epochs


def test_the_merges_are_nested():
    trained = []
    model = JULE(**SMALL)
    original = JULELearner._label

    def watch(self, labels, counts):
        trained.append(labels)
        original(self, labels, counts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JULELearner, "_label", watch)
        model.set_params(min_cluster_size=1, result="sf").fit(images(), progress=False)
    for fine, coarse in zip(trained, [*trained[1:], torch.from_numpy(model.labels_)], strict=True):
        pairs = {(int(a), int(b)) for a, b in zip(fine, coarse, strict=True)}
        assert len(pairs) == len(fine.unique())


@pytest.mark.parametrize("result", ["rc", "sf"])
@pytest.mark.parametrize("smallest", [None, 1, 20])
def test_the_labels_are_merges_of_the_last_features(watched, result, smallest):
    # Noise: what has no clusters is merged otherwise from each start.
    noise, y = torch.rand(120, 1, 8, 8, generator=torch.Generator().manual_seed(1)), np.arange(120) % 4
    model = fit(data=noise, y=y, result=result, min_cluster_size=smallest)
    features = torch.from_numpy(model.transform(noise))
    record, used = model.metrics_["conclusion"], smallest or 3
    assert record["min_cluster_size"] == used
    assert record["result"] == result
    assert record["rc"] != record["sf"]
    for name, start in (("rc", None), ("sf", watched[-1]["learner"].labels)):
        tree = merged(features, 4, start)
        plain, found = tree.labels.numpy(), cut(tree, 4, min_size=used, x=features).labels.numpy()
        assert record[f"{name}_plain"] == {"clusters": 4, **scores(plain, y)}
        assert record[name] == {"clusters": len(set(found)), **scores(found, y)}
        if name == result:
            assert np.array_equal(model.labels_, found)
            assert model.n_clusters_ == len(set(found))
    assert np.bincount(model.labels_).min() >= used


@pytest.mark.parametrize(
    ("n_clusters", "n_images", "n_neighbors", "given", "expected"),
    [
        (10, 10_000, 20, None, 20),
        (20, 1_440, 20, None, 7),
        (20, 575, 20, None, 2),
        (100, 500, 20, None, 1),
        (10, 70_000, 30, None, 30),
        (10, 10_000, 20, 50, 50),
    ],
)
def test_the_smallest_size_that_counts_as_a_cluster(n_clusters, n_images, n_neighbors, given, expected):
    model = JULE(n_clusters, n_neighbors=n_neighbors, min_cluster_size=given)
    assert model.smallest_cluster(n_images) == expected


def test_planned_epochs_are_the_most(watched):
    model = fit(epochs=1)
    assert len(watched) == 1
    assert set(model.labels_) <= set(range(4))
    assert not model.metrics_["conclusion"]["merged_out"]
    whole = fit()
    assert whole.metrics_["conclusion"]["merged_out"]
    assert len(watched) - 1 == len(whole.history_) > 1


def test_the_learning_rate_falls_over_the_whole_run():
    model = fit()
    for record in model.history_:
        last_step = 4 * record["epoch"] - 1
        assert record["lr"] == pytest.approx(0.05 * (1 + 1e-4 * last_step) ** -0.75)


def test_the_paper_is_the_default():
    model = JULE()
    net = model.make_net((1, 28, 28))
    learner = model.make_learner(net, load_data(torch.rand(10, 1, 28, 28)), model.make_augmentation((1, 28, 28)))
    (group,) = learner.optimizer.param_groups
    assert isinstance(learner.optimizer, torch.optim.SGD)
    assert (group["lr"], group["momentum"], group["nesterov"], group["weight_decay"]) == (0.01, 0.9, False, 5e-5)
    place = Place(epoch=100, step=0, n_batches=100, passes=("main",), epochs=200)
    assert learner.rate(place) == pytest.approx(2**-0.75)
    assert (model.n_neighbors, model.a, model.kc, model.lam, model.eta, model.batch_size) == (20, 1, 5, 1, 0.9, 100)
    assert model.make_augmentation((1, 28, 28)).name == "none"


def test_the_loss_is_the_weighted_triplet_loss(monkeypatch):
    asked = []
    original = deepclust_ext.jule_loss

    def watch(z, labels, **options):
        asked.append((z.detach().clone(), labels.clone(), options))
        return original(z, labels, **options)

    monkeypatch.setattr("deepclust_ext.methods.jule_learner.jule_loss", watch)
    fit(gamma=1.5, margin=0.3, n_negatives=7, epochs=2)
    first = asked[0]
    torch.testing.assert_close(first[0].norm(dim=1), torch.ones(30))
    assert {k: v for k, v in first[2].items() if k != "generator"} == {"gamma": 1.5, "margin": 0.3, "n_negatives": 7}
    # Each step draws triplets of its own, and a second run the same.
    seeds = [options["generator"] for *_, options in asked]
    assert len(set(seeds)) == len(seeds) == 8
    fit(gamma=1.5, margin=0.3, n_negatives=7, epochs=2)
    assert [options["generator"] for *_, options in asked[8:]] == seeds


@pytest.mark.parametrize("reinitialise", [False, True])
def test_a_period_can_start_from_the_initial_weights(watched, reinitialise):
    starts = []

    def note(learner, index, place, **options):
        if place.step == 0 and place.epoch % 2 == 0:
            weights = torch.cat([p.detach().flatten() for p in learner.net.parameters()])
            starts.append((weights.clone(), bool(learner.optimizer.state)))
        return original(learner, index, place, **options)

    original = loop.train_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_step", note)
        fit(reinitialise=reinitialise)
    assert len(starts) > 1
    for weights, remembers in starts[1:]:
        assert torch.equal(weights, starts[0][0]) == reinitialise
        assert remembers != reinitialise
    # Merges are of what was trained.
    assert not torch.equal(watched[2]["features"], watched[0]["features"])


def test_the_rules_reach_the_merges(monkeypatch):
    asked = []
    for name, where in (("affinity_graph", "training.sharing"), ("agglomerate", "methods.jule")):
        original = getattr(deepclust_ext, name)

        def watch(*arguments, original=original, name=name, **options):
            asked.append((name, arguments[1], {k: v for k, v in options.items() if k not in ("labels", "x")}))
            return original(*arguments, **options)

        monkeypatch.setattr(f"deepclust_ext.{where}.{name}", watch)
    fit(a=2.0, kc=3, lam=0.5, update="sum", n_neighbors=9)
    graphs = {(k, options["a"]) for name, k, options in asked if name == "affinity_graph"}
    assert graphs == {(9, 2.0)}
    rules = [options for name, _, options in asked if name == "agglomerate"]
    assert len(rules) >= 3
    assert all(options == {"kc": 3, "lam": 0.5, "update": "sum"} for options in rules)
    # Fewer images than neighbours.
    asked.clear()
    fit(data=images(8), n_clusters=2, n_neighbors=20)
    assert {k for name, k, _ in asked if name == "affinity_graph"} == {7}


def test_what_a_period_logs():
    y = pictures(120)[1]
    model = fit(y=y)
    merges = [record for record in model.history_ if "merging_seconds" in record]
    assert [record["epoch"] for record in merges] == list(range(1, len(model.history_), 2))
    for record in merges:
        assert 0 <= record["nmi_labels"] <= 1
        assert record["empty"] == 0
    for record in model.history_:
        assert record["clusters_used"] == [record["clusters"]]
        assert 0 < record["largest_share"][0] < 1
    assert "nmi_labels" not in fit().history_[0]


def test_labels_never_train():
    plain, scored = fit(), fit(y=np.arange(120) % 7)
    for name, value in plain.net_.state_dict().items():
        assert torch.equal(value, scored.net_.state_dict()[name])
    assert np.array_equal(plain.labels_, scored.labels_)


def test_a_short_run_on_digits_beats_k_means():
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeepclustWarning)
        model = JULE(10, width=0.4, dim=40, period_epochs=4, lr=0.03, device="cpu").fit("digits", progress=False)
    found, pixels = model.metrics_["scores"], model.metrics_["kmeans_pixels"]
    assert found["nmi"] > pixels["nmi"] + 0.05
    assert found["acc_hungarian"] > 0.75
    # Other images of the same kind are labelled as well.
    assert (model.predict("digits") == model.labels_).mean() > 0.9


# Other images, other numbers of clusters


def test_new_images_get_the_nearest_centroid():
    model = fit()
    features = torch.from_numpy(model.transform(images()))
    means = torch.stack([features[model.labels_ == k].mean(0) for k in range(4)])
    others = images(60, seed=5)
    nearest = torch.cdist(torch.from_numpy(model.transform(others)), means).argmin(1)
    assert np.array_equal(model.predict(others), nearest.numpy())
    np.testing.assert_allclose(model.predict_proba(others).sum(1), 1, rtol=1e-5)
    assert acc_hungarian(model.predict(others), pictures(60, 5)[1]) > 0.9
    assert ((model.confidence_ >= 0) & (model.confidence_ <= 1)).all()


def test_the_tree_can_be_cut_anywhere():
    model = fit(min_cluster_size=1)
    tree, features = model.merge_tree(images()), torch.from_numpy(model.transform(images()))
    assert tree.n_clusters == 1
    assert np.array_equal(cut(tree, 4, min_size=1, x=features).labels.numpy(), model.labels_)
    for k in (2, 6, 9):
        labels = cut(tree, k).labels
        assert len(labels.unique()) == k
        assert len(cut(tree, k, min_size=10, x=features).labels.unique()) <= k
    others = model.merge_tree(images(50, seed=3))
    assert others.labels.shape == (50,)


def test_more_clusters_than_chains_are_what_there_is():
    model = fit(n_clusters=60, min_cluster_size=1, epochs=50)
    chains = model.metrics_["conclusion"]["clusters"]
    assert len(chains) == 1
    assert chains[0] < 60
    assert model.metrics_["epochs"] == 2
    assert model.n_clusters_ < 60


def test_copies_of_one_image_do_not_stop_it():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeepclustWarning)
        model = JULE(**{**SMALL, "n_clusters": 2}).fit(images(1).repeat(40, 1, 1, 1), progress=False)
    assert set(model.labels_) <= {0, 1}


@pytest.mark.parametrize("network", ["own", "lenet5"])
def test_any_network_can_be_trained(network):
    own = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(784, 12))
    before = [p.clone() for p in own.parameters()]
    large = torch.from_numpy(pictures(60, size=16)[0])[:, None]
    options = {"network": own, "width": 1.0} if network == "own" else {"network": network}
    model = fit(data=large, epochs=1, **options)
    assert all(torch.equal(a, b) for a, b in zip(before, own.parameters(), strict=True))
    assert len(model.labels_) == 60


# Parameters


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"n_neighbors": 0}, ValueError, "'n_neighbors' must be at least 1"),
        ({"a": 0.0}, ValueError, "'a' must be finite and above 0"),
        ({"kc": 0}, ValueError, "'kc' must be at least 1"),
        ({"lam": -1.0}, ValueError, "'lam' must be finite and at least 0"),
        ({"eta": 1.0}, ValueError, "'eta' must be finite, above 0 and below 1"),
        ({"eta": 0.0}, ValueError, "'eta' must be finite, above 0 and below 1"),
        ({"period_epochs": 0}, ValueError, "'period_epochs' must be at least 1"),
        ({"min_cluster_size": 0}, ValueError, "'min_cluster_size' must be at least 1"),
        ({"min_cluster_size": 2.5}, TypeError, "'min_cluster_size' must be a whole number"),
        ({"min_cluster_size": 31}, ValueError, "'min_cluster_size' must be at most N / K"),
        ({"result": "both"}, ValueError, "'result' must be one of 'rc', 'sf'"),
        ({"update": "fast"}, ValueError, "'update' must be one of 'exact', 'slide', 'sum'"),
        ({"gamma": 0.0}, ValueError, "'gamma' must be finite and above 0"),
        ({"margin": -0.1}, ValueError, "'margin' must be finite and at least 0"),
        ({"n_negatives": 0}, ValueError, "'n_negatives' must be at least 1"),
        ({"dim": 0}, ValueError, "'dim' must be at least 1"),
        ({"n_clusters": None}, TypeError, "'n_clusters' must be a whole number"),
        ({"n_clusters": 121}, ValueError, "'n_clusters' must be at most the number of images"),
        ({"network": "jules"}, ValueError, "'network' must be one of"),
    ],
)
def test_wrong_parameters_are_refused_before_anything_is_written(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        fit(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


def test_shipped_configurations_can_be_built():
    assert set(config_names("jule")) == {"faces", "paper"}
    assert load_config("jule", "faces")["eta"] == 0.2
    paper = load_config("jule", "paper")
    assert (paper["gamma"], paper["min_cluster_size"]) == (2.0, 1)
    for name in config_names("jule"):
        model = JULE(**load_config("jule", name))
        model.check_parameters()
        model.make_net((1, 28, 28))


# Saving and resuming


def records(folder):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    timed = ("seconds", "merging_seconds", "augmentation_share", "time")
    return [{k: v for k, v in line.items() if k not in timed} for line in lines if line["event"] == "epoch"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference") / "run"
    return folder, fit(folder, reinitialise=True, checkpoint_every=3)


def again(folder, **options):
    return fit(folder, reinitialise=True, checkpoint_every=3, **options)


def assert_same(folder, reference):
    for name in ("labels.csv", "embeddings.npz"):
        assert (folder / name).read_bytes() == (reference[0] / name).read_bytes()
    assert records(folder) == records(reference[0])


# agglomerate: once for each merge of the run, then for SF and RC.
@pytest.mark.parametrize(
    ("where", "name", "call"),
    [
        *(("deepclust_ext.methods.jule", "agglomerate", call) for call in (1, 2, 3, 4)),
        *(("deepclust_ext.methods.jule_learner", "cut", call) for call in (1, 2)),
        ("deepclust_ext.methods.jule_learner", "initial_clusters", 1),
        ("deepclust_ext.methods.jule_learner", "partition_figures", 2),
        ("deepclust_ext.methods.jule_learner", "jule_loss", 11),
        ("deepclust_ext.training.results", "label_heads", 1),
    ],
)
def test_a_run_killed_inside_a_merge_ends_the_same(tmp_path, monkeypatch, reference, where, name, call):
    do_at(monkeypatch, sys.modules[where], name, call, kill)
    with pytest.raises(Killed):
        again(tmp_path / "run")
    monkeypatch.undo()
    model = again(tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", reference)
    assert model.metrics_["conclusion"] == reference[1].metrics_["conclusion"]


@pytest.mark.parametrize("step", [(0, 2), (1, 3), (2, 0), (2, 3), (3, 1)])
def test_a_signal_saves_in_the_middle_of_an_epoch(tmp_path, monkeypatch, reference, step):
    stop_at(monkeypatch, *step, terminate)
    with pytest.raises(SystemExit):
        again(tmp_path / "run")
    monkeypatch.undo()
    again(tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", reference)


def test_a_process_that_is_killed_while_it_merges(tmp_path, reference):
    """A real SIGKILL, sent from inside the second merge."""
    script = (
        "from deepclust_ext.methods import JULE, jule\n"
        "agglomerate, calls = jule.agglomerate, []\n"
        "def dying(*a, **k):\n"
        "    calls.append(0)\n"
        "    result = agglomerate(*a, **k)\n"
        "    return result if len(calls) < 2 else os.kill(os.getpid(), signal.SIGKILL)\n"
        "jule.agglomerate = dying\n"
        f"JULE(**{ {**SMALL, 'reinitialise': True, 'checkpoint_every': 3}!r}).fit(images, run=run)"
    )
    run_until_killed(tmp_path, images(), script)
    again(tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", reference)


def test_results_that_are_gone_are_made_again(tmp_path, reference):
    folder = tmp_path / "run"
    shutil.copytree(reference[0], folder)
    (folder / "labels.csv").unlink()
    model = again(folder, resume=True)
    assert_same(folder, reference)
    assert model.metrics_["conclusion"] == reference[1].metrics_["conclusion"]


def test_concluding_twice_gives_the_same_and_changes_nothing(watched):
    fit()
    learner, place = watched[-1]["learner"], watched[-1]["place"].next_epoch()
    kept = {key: value.clone() for key, value in learner.net.state_dict().items()}
    first, second = learner.conclude(place), learner.conclude(place)
    assert torch.equal(first.labels, second.labels)
    assert first.record == second.record
    for key, value in learner.net.state_dict().items():
        assert torch.equal(value, kept[key])


def test_it_is_saved_and_loaded(tmp_path, reference):
    model = reference[1]
    model.save(tmp_path / "model.pt")
    for loaded in (Method.load(tmp_path / "model.pt"), JULE.load(reference[0])):
        assert np.array_equal(loaded.predict(images(60, seed=5)), model.predict(images(60, seed=5)))
        assert np.array_equal(loaded.labels_, model.labels_)
        assert torch.equal(loaded.merge_tree(images()).children, model.merge_tree(images()).children)


def test_threads_of_another_number_change_no_merge(reference):
    features = torch.from_numpy(reference[1].transform(images()))
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        found.append(JULE(**SMALL).merge(features, 4))
    torch.set_num_threads(1)
    assert torch.equal(found[0].labels, found[1].labels)
    assert torch.equal(found[0].affinities, found[1].affinities)
