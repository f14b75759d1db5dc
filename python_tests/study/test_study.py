"""Initial alignment, sweeps and `deepclust study`."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from support.clidata import pictures, single_thread
from torch import nn

from deepclust_ext import evaluate
from deepclust_ext.cli import main
from deepclust_ext.commands.study import parse_values
from deepclust_ext.data import load_data
from deepclust_ext.evaluate import nmi
from deepclust_ext.methods import DeepCluster
from deepclust_ext.methods.deepcluster import DeepClusterLearner
from deepclust_ext.runs import RunError
from deepclust_ext.study import InitialAlignment, initial_alignment, plot_alignment, select_alignment, sweep

pytestmark = pytest.mark.filterwarnings("ignore:DeepCluster. :deepclust_ext._warnings.DeepclustWarning")

SMALL = {
    "n_clusters": 4, "network": "tiny8", "width": 0.25, "batch_size": 40, "epochs": 2, "lr": 0.05, "device": "cpu",
}  # fmt: skip


def data(n=160, seed=0):
    images, kinds = pictures(n, seed)
    return load_data(torch.from_numpy(images)[:, None], y=kinds)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with single_thread():
        yield


# Initial alignment


def test_it_is_what_the_first_clustering_of_a_run_reaches():
    model = DeepCluster(**SMALL, n_components=5)
    (found,) = initial_alignment(model, data(), seeds=(0, 3))
    for seed, value in zip(found.seeds, found.values, strict=True):
        run = DeepCluster(**{**SMALL, "seed": seed, "epochs": 1}, n_components=5).fit(data(), progress=False)
        assert value == run.history_[0]["nmi_labels"]
    assert found.median == np.median(found.values)


def test_every_setting_has_its_values():
    model = DeepCluster(**SMALL)
    found = initial_alignment(model, data(), n_clusters=(3, 6), n_components=(None, 4), seeds=range(3))
    assert [(one.n_clusters, one.n_components) for one in found] == [(3, None), (3, 4), (6, None), (6, 4)]
    (alone,) = initial_alignment(model, data(), n_clusters=(6,), n_components=(4,), seeds=range(3))
    assert np.array_equal(alone.values, found[-1].values)
    assert all(len(np.unique(one.values)) == 3 for one in found)
    assert json.loads(json.dumps(found[0].record()))["n_clusters"] == 3


def test_only_labelled_images_count_and_all_are_clustered():
    images, rows = data(), np.arange(0, 160, 4)
    model = DeepCluster(**SMALL, seed=7)
    classes = images.labels.numpy().copy()
    classes[np.setdiff1d(np.arange(160), rows)] = 0
    hidden = load_data(images.images, y=classes)
    (found,) = initial_alignment(model, hidden, seeds=(1,), labelled=rows)
    run = DeepCluster(**{**SMALL, "seed": 1, "epochs": 1, "halt_after": 1}).fit(images, progress=False)
    first = initial_alignment(model, images, seeds=(1,))[0].values[0]
    assert first == run.history_[0]["nmi_labels"] != found.values[0]
    net = model.set_params(seed=1).make_net((1, 8, 8))
    assert isinstance(net, nn.Module)
    everything = initial_alignment(model, images, seeds=(1,), labelled=np.arange(160))[0]
    assert everything.values[0] == first


def test_the_setting_with_the_largest_median_is_selected():
    def one(k, m, *values):
        return InitialAlignment(k, m, tuple(range(len(values))), np.array(values))

    best = one(9, None, 0.1, 0.5, 0.6)
    assert select_alignment([one(5, None, 0.4, 0.4, 0.9), best]) is best
    low = one(3, None, 0.5)
    assert select_alignment([best, low]) is low
    assert select_alignment([one(3, None, 0.5), one(3, 8, 0.5)]).n_components == 8
    with pytest.raises(ValueError, match="'found' must hold"):
        select_alignment([])


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_histograms_are_drawn(tmp_path, suffix):
    pytest.importorskip("matplotlib")
    found = [InitialAlignment(5, m, (0, 1, 2), np.array([0.1, 0.2, 0.4])) for m in (None, 8)]
    plot_alignment(found, tmp_path / f"plot.{suffix}")
    assert (tmp_path / f"plot.{suffix}").stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"seeds": ()}, ValueError, "'seeds' must hold at least one value"),
        ({"n_clusters": ()}, ValueError, "'n_clusters' must hold"),
        ({"n_components": (1000,)}, ValueError, "'n_components' must be at most"),
        ({"n_clusters": (161,)}, ValueError, "'n_clusters' must be at most"),
        ({"seeds": (-1,)}, ValueError, "'seeds' must be at least 0"),
        ({"labelled": np.array([0, 160])}, ValueError, "'labelled' must hold rows from 0 to 159"),
        ({"labelled": np.array([0, 0])}, ValueError, "each once"),
        ({"labelled": np.array([0.0, 1.0])}, ValueError, "'labelled' must be two or more rows"),
        ({"labelled": ["a", "b"]}, ValueError, "'labelled' must be two or more rows"),
        ({"seeds": 3}, TypeError, r"'seeds' must be a sequence of whole numbers, got 3; write \[3\]"),
        ({"seeds": (0, 0)}, ValueError, "'seeds' must hold every value once"),
        ({"n_clusters": "34"}, TypeError, "'n_clusters' must be a whole number, got '3'"),
        ({"n_clusters": (None,)}, TypeError, "'n_clusters' must be a whole number, got None"),
    ],
)
def test_wrong_arguments_are_named(options, error, message):
    with pytest.raises(error, match=message):
        initial_alignment(DeepCluster(**SMALL), data(), **{"seeds": (0,), **options})


def test_numbers_of_numpy_can_be_written_to_a_file():
    found = initial_alignment(DeepCluster(**SMALL), data(), n_clusters=np.array([3, 4]), seeds=np.arange(2))
    assert [json.loads(json.dumps(one.record()))["seeds"] for one in found] == [[0, 1], [0, 1]]


def test_a_module_is_no_random_network():
    own = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
    model = DeepCluster(**{**SMALL, "network": own, "width": 1.0})
    with pytest.raises(ValueError, match="'model' must have a network by name, got a module"):
        initial_alignment(model, data(), seeds=(0, 1))
    assert len(initial_alignment(model, data(), seeds=(1,))[0].values) == 1
    with pytest.raises(TypeError, match="'model' must be a DeepCluster, got Sequential"):
        initial_alignment(own, data())


def test_classes_are_needed():
    with pytest.raises(ValueError, match="'y' must be given"):
        initial_alignment(DeepCluster(**SMALL), data().images, seeds=(0,))


# Sweeps


def test_a_sweep_measures_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    # Classes that nothing can learn, so that accuracies differ.
    train, test = (
        load_data(data(n, seed).images, y=np.random.default_rng(seed).integers(0, 4, n))
        for n, seed in ((160, 0), (80, 1))
    )
    model = DeepCluster(**SMALL)

    def again(values, **options):
        return sweep(model, "halt_after", values, train, test, seeds=(0, 1), out=tmp_path, progress=None, **options)

    runs = again([1, None])
    assert [(run.value, run.seed) for run in runs] == [(1, 0), (1, 1), (None, 0), (None, 1)]
    assert (tmp_path / "halt_after=off" / "seed-1" / "labels.csv").exists()
    first = DeepCluster(**SMALL, halt_after=1).fit(train, progress=False)
    assert runs[0].nmi == first.metrics_["scores"]["nmi"]
    assert runs[0].initial_alignment == runs[2].initial_alignment == first.history_[0]["nmi_labels"]
    # The same seed starts from the same network, whatever the sweep changes.
    assert runs[0].untrained == runs[2].untrained != runs[1].untrained
    assert runs[0].probes != runs[0].untrained
    assert all(0 <= value <= 1 for run in runs for value in run.probes.values())
    monkeypatch.setattr(DeepClusterLearner, "loss", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr("deepclust_ext.evaluate.probe_layers", lambda *_, **__: pytest.fail("probed again"))
    assert again([1, None]) == runs
    assert [run["value"] for run in json.loads((tmp_path / "halt_after.json").read_text())] == [1, 1, None, None]


def test_a_folder_that_is_used_again_has_no_figures_of_before(tmp_path):
    train, test = data(), data(80, seed=1)
    mixed = load_data(train.images, y=np.random.default_rng(0).permutation(train.labels.numpy()))
    other = load_data(test.images[:50], y=test.labels[:50].numpy() * 0 + 3)

    def run(out, images, held_out, parameter="n_clusters", **changes):
        model = DeepCluster(**{**SMALL, **changes})
        (found,) = sweep(model, parameter, [4], images, held_out, seeds=(0,), out=tmp_path / out)
        return {**asdict(found), "seconds": None}

    DeepCluster(**SMALL).fit(train.images, run=tmp_path / "used" / "n_clusters=4" / "seed-0", progress=False)
    for number, (images, held_out, changes) in enumerate((
        (train, test, {}),
        (mixed, test, {}),
        (mixed, other, {}),
        (train, test, {"parameter": "halt_after", "width": 0.5}),
    )):  # fmt: skip
        assert run("used", images, held_out, **changes) == run(f"new-{number}", images, held_out, **changes)


def test_an_untrained_network_is_probed_once(tmp_path, monkeypatch):
    probed = []
    original = evaluate.probe_layers
    monkeypatch.setattr(evaluate, "probe_layers", lambda *a, **k: probed.append(0) or original(*a, **k))
    sweep(DeepCluster(**SMALL), "n_clusters", [3, 4], data(), data(80, seed=1), seeds=(0,), out=tmp_path)
    assert len(probed) == 3


def test_layers_that_are_missing_are_added(tmp_path):
    train, test = data(), data(80, seed=1)
    model = DeepCluster(**{**SMALL, "epochs": 1})
    names = [name for name, part in model.make_net((1, 8, 8)).named_modules() if isinstance(part, nn.Conv2d)]
    assert len(names) > 2

    def probe(layers):
        (run,) = sweep(model, "n_clusters", [4], train, test, seeds=(0,), out=tmp_path, layers=layers)
        return run.probes

    one = probe(names[:1])
    both = probe(names[:2])
    assert list(one) == names[:1]
    assert list(both) == names[:2]
    assert both[names[0]] == one[names[0]]


def test_wrong_data_for_the_probes_are_refused_before_anything_runs(tmp_path):
    one_class = load_data(data().images, y=np.zeros(160, dtype=np.int64))
    larger = load_data(torch.zeros(20, 1, 9, 9), y=np.arange(20) % 4)
    without = load_data(data().images)
    for train, test, error, message in (
        (data().images, data(), TypeError, "'train' must be an ImageData, got Tensor"),
        (data(), larger, ValueError, "'test' must hold images of the shape"),
        (one_class, data(), ValueError, "'train' must have at least two classes"),
        (data(), without, ValueError, "'test' must have labels"),
    ):
        with pytest.raises(error, match=message):
            sweep(DeepCluster(**SMALL), "n_clusters", [4], train, test, out=tmp_path)
    with pytest.raises(ValueError, match="'layers' must be names of modules"):
        sweep(DeepCluster(**SMALL), "n_clusters", [4], data(), data(), out=tmp_path, layers=["conv9"])
    bare = DeepCluster(**{**SMALL, "network": nn.Sequential(nn.Flatten(), nn.Linear(64, 8)), "width": 1.0})
    with pytest.raises(ValueError, match=r"must hold an nn\.Conv2d"):
        sweep(bare, "n_clusters", [4], data(), data(), out=tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="'out' must be a folder"):
        sweep(DeepCluster(**SMALL), "n_clusters", [4], data(), data(), out=tmp_path / "file")


@pytest.mark.parametrize(
    ("parameter", "values", "message"),
    [
        ("n_clusters", [4, 4], "'values' must hold every value once"),
        ("lr", [1], "'parameter' must be one of"),
        ("n_clusters", [], "'values' must hold at least one value"),
        ("n_clusters", [4, 500], "'n_clusters' must be at most"),
        ("halt_after", [1, 0], "'halt_after' must be at least 1"),
    ],
)
def test_wrong_sweeps_are_refused_before_anything_runs(tmp_path, parameter, values, message):
    with pytest.raises(ValueError, match=message):
        sweep(DeepCluster(**SMALL), parameter, values, data(), data(80), seeds=(0,), out=tmp_path)
    assert not list(tmp_path.iterdir())


# The command


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "kinds.npz"
    (x, y), (x_test, y_test) = pictures(160), pictures(80, seed=1)
    np.savez(path, x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    return str(path)


WORDS = ["--network", "tiny8", "--width", "0.25", "--set", "batch_size=40", "--device", "cpu"]


def test_alignment_from_the_command_line(tmp_path, archive, capsys):
    out = tmp_path / "ia"
    words = ["study", "alignment", "--data", archive, "--out", str(out), "--seeds", "0-2", "--quiet", *WORDS]
    assert main([*words, "--values", "3,4", "--components", "off,4", "--labelled", "100"]) == 0
    table = capsys.readouterr().out
    record = json.loads((out / "alignment.json").read_text())
    assert len(record["settings"]) == 4
    best = max(record["settings"], key=lambda one: one["median"])
    assert f"{best['median']:.4f}" in table
    assert f"largest median: K = {best['n_clusters']}" in table


def test_a_sweep_from_the_command_line(tmp_path, archive, capsys):
    words = [
        "study",
        "clusters",
        "--data",
        archive,
        "--out",
        str(tmp_path),
        "--seeds",
        "0-1",
        "--epochs",
        "1",
        "--quiet",
    ]
    assert main([*words, *WORDS, "--values", "3,5", "--layers", "all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["n_clusters", "IA", "NMI"]
    assert [line.split()[0] for line in lines[1:]] == ["3", "5"]
    assert all(line.split()[-1] == "2" for line in lines[1:])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "KIND must come first"),
        (["depth"], "KIND must come first"),
        (["alignment", "--values", "3,off"], "must be numbers of clusters"),
        (["clusters", "--values", "3,x"], "whole numbers or"),
        (["clusters", "--values", "3,3"], "every value once"),
        (["clusters", "--values", "3,off"], "--values must be numbers of clusters, got 'off'"),
        (["clusters", "--values", "\u00b2"], "--values must be whole numbers or"),
        (["clusters", "--values", "9" * 5000], "--values must be whole numbers or"),
        (["alignment", "--components", "3,x"], "--components must be whole numbers or"),
        (["alignment", "--labelled", "1"], "--labelled must be between 2"),
        (["alignment", "--plot", "plot.xyz"], "--plot must end in .png, .svg or .pdf"),
        (["alignment", "--plot", "nowhere/plot.png"], "--plot must be in a folder that is there"),
        (["halting", "--resume", "always"], "a sweep always goes on"),
        (["alignment", "--resume", "auto"], "an alignment starts anew"),
        (["halting", "--seed", "5"], "--seeds, got --seed 5; write --seeds 5"),
        (["halting", "--layers", "conv9"], "must be names of modules"),
        (["halting", "--seed", "x"], "argument --seed"),
        (["clusters", "--clusters", "3"], "--clusters must be left out where --values gives"),
        (["halting", "--set", "halt_after=3"], "--halt-after must be left out where --values gives"),
        (["alignment", "--values", "3", "--clusters=3"], "--clusters must be left out where --values gives"),
        (["alignment", "--components", "3", "--n_components", "3"], "--n-components must be left out where --comp"),
    ],
)
def test_wrong_command_lines_are_refused(tmp_path, archive, capsys, words, message):
    rest = ["--data", archive, "--out", str(tmp_path / "out"), *WORDS] if words else []
    assert main(["study", *words, *rest]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_alignment_does_not_work_for_an_out_that_is_a_file(tmp_path, archive, capsys, monkeypatch):
    monkeypatch.setattr("deepclust_ext.study.initial_alignment", lambda *_, **__: pytest.fail("worked"))
    (tmp_path / "file").touch()
    assert main(["study", "alignment", "--data", archive, "--out", str(tmp_path / "file"), *WORDS]) == 2
    assert "--out must be a folder, got the file" in capsys.readouterr().err


def test_an_out_that_cannot_be_written_is_refused_before_the_work(tmp_path, archive, capsys, monkeypatch):
    monkeypatch.setattr("deepclust_ext.study.initial_alignment", lambda *_, **__: pytest.fail("worked"))
    monkeypatch.setattr("os.access", lambda path, _: path != tmp_path)  # root may write anywhere
    out = str(tmp_path / "new" / "out")
    assert main(["study", "alignment", "--data", archive, "--out", out, *WORDS]) == 2
    assert "--out must be a folder that can be written" in capsys.readouterr().err


def test_values_are_read():
    assert parse_values("1, 10,off") == [1, 10, None]


def test_nmi_of_the_classes_is_the_arithmetic_one():
    # `initial_alignment` says so.
    assert nmi([0, 0, 1, 1], [0, 0, 0, 1]) == pytest.approx(2 * 0.21576 / (0.69315 + 0.56234), rel=1e-4)
