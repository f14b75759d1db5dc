"""`deepclust evaluate`, `info`, `bench` and the help."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types

import numpy as np
import pytest
from support.clidata import SETTINGS, pictures, single_thread, write_folder

import deepclust_ext
from deepclust_ext.cli import main
from deepclust_ext.evaluate import (
    acc_hungarian,
    compare_clusterers,
    knn_accuracy,
    linear_probe,
    low_dimensional,
    neighbour_purity,
    scores,
    transfer,
)
from deepclust_ext.methods import DHOG, Method


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with single_thread():
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on an archive with a train and a test half, whose test classes are shifted by one."""
    folder = tmp_path_factory.mktemp("evaluate")
    (x_train, y_train), (x_test, y_test) = pictures(120), pictures(60, seed=1)
    np.savez(folder / "data.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=(y_test + 1) % 4)
    (folder / "tiny.yaml").write_text(SETTINGS)
    before = os.getcwd()
    os.chdir(folder)
    assert main(["fit", "dhog", "--config", "tiny.yaml", "--data", "data.npz", "--out", "run", "--quiet"]) == 0
    os.chdir(before)
    return folder


def test_scores_and_probes_of_train_and_test(run, monkeypatch, capfd, tmp_path):
    # From another folder: the run remembers where its data are.
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", str(run / "run")]) == 0
    out = capfd.readouterr().out
    metrics = json.loads((run / "run" / "metrics.json").read_text())
    found = metrics["evaluation"]
    method = Method.load(run / "run")
    (x, y), (x_test, y_test) = pictures(120), pictures(60, seed=1)
    y_test = (y_test + 1) % 4
    assert found["train"] == pytest.approx(scores(method.labels_, y))
    # Clusters keep the classes they had on the training labels, so the shifted test classes count as wrong.
    labels = method.predict(x_test)
    assert found["test"]["acc_hungarian"] == acc_hungarian(labels, y_test, mapping=method.mapping_)
    assert found["test"]["acc_hungarian"] < 0.5
    parts = method.transform(x), y, method.transform(x_test), y_test
    assert found["probes"]["knn"] == pytest.approx(knn_accuracy(*parts))
    assert found["probes"]["linear"] == pytest.approx(linear_probe(*parts))
    assert found["probes"]["tested_on"] == "60 test images"
    assert found["diagnostics"]["n_clusters_used"] == method.n_clusters_
    for number in (found["train"]["nmi"], found["test"]["ari"], found["probes"]["knn"]):
        assert f"{number:.4f}" in out
    # What the fit wrote is still there.
    assert metrics["scores"] == found["train"]


def test_figures_of_the_embeddings(run, monkeypatch, capfd, tmp_path):
    x, y = pictures(50, seed=3, size=16)
    np.savez(tmp_path / "other.npz", x=x, y=y)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("deepclust_ext.commands.evaluate.PAIRED", 60)
    assert main(["evaluate", str(run / "run"), "--transfer", "other.npz"]) == 0
    out = capfd.readouterr().out
    found = json.loads((run / "run" / "metrics.json").read_text())["evaluation"]
    method, (images, classes) = Method.load(run / "run"), pictures(120)
    embeddings = method.transform(images)
    purity = neighbour_purity(embeddings, classes, ks=(1, 10, 100))
    assert found["neighbour_purity"] == {str(k): pytest.approx(value) for k, value in purity.items()}
    both = ("kmeans", "affinity")
    assert found["clusterers"] == compare_clusterers(embeddings, classes, 4, clusterers=both, seed=method.seed)
    # A part of the images, the same every time.
    assert len(found["low_dimensional"]) == 3
    assert found["low_dimensional"] != low_dimensional(embeddings, classes, images.reshape(120, -1) / 255)
    moved = found["transfer"]
    assert moved.pop("data") == "other.npz"
    assert moved == transfer(method, x, y, seed=method.seed)
    for text in ("other.npz, kmeans on pixels", "affinity on embeddings", "k = 100", "trustworthiness, k = 12"):
        assert text in out


def test_without_labels_the_label_free_figures_remain(tmp_path, capfd, run):
    data = write_folder(tmp_path / "images", nested=True)
    words = ["fit", "dhog", "--config", str(run / "tiny.yaml"), "--data", str(data), "--out", str(tmp_path / "run")]
    assert main(words) == 0
    capfd.readouterr()
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    out = capfd.readouterr().out
    assert "silhouette" in out
    assert "ACC" not in out
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())["evaluation"]
    assert found.keys() == {"diagnostics"}
    # Labels that are asked for later, and images that have moved.
    data.rename(tmp_path / "moved")
    assert main(["evaluate", str(tmp_path / "run")]) == 2
    assert "no such file or folder" in capfd.readouterr().err
    (tmp_path / "run" / "embeddings.npz").unlink()
    assert main(["evaluate", str(tmp_path / "run"), "--data", str(tmp_path / "moved"), "--folder-labels"]) == 0
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())["evaluation"]
    assert found["probes"]["tested_on"] == "24 training images held out"
    assert "kmeans_pixels" in found


@pytest.mark.filterwarnings("ignore:DHOG")
def test_a_run_from_python_needs_its_data_named(tmp_path, run, capfd):
    images, _ = pictures(60)
    np.savez(tmp_path / "images.npz", x=images)
    settings = Method.load(run / "run").get_params() | {"epochs": 1}
    DHOG(**settings).fit(images, run=tmp_path / "run")
    assert main(["evaluate", str(tmp_path / "run")]) == 2
    assert "does not say where its data are; pass --data" in capfd.readouterr().err
    assert main(["evaluate", str(tmp_path / "run"), "--data", str(tmp_path / "images.npz")]) == 0


# info, bench, help


def test_info_names_versions_and_devices(capfd):
    assert main(["info", "--json"]) == 0
    facts = json.loads(capfd.readouterr().out)
    assert facts["deepclust_ext"] == deepclust_ext.__version__
    assert facts["simd"] == deepclust_ext.build_info()["simd"]
    assert {"python", "torch", "cuda_library", "devices", "scikit-learn"} <= facts.keys()
    assert main(["info"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split() == ["deepclust_ext", deepclust_ext.__version__]
    silent = {"warnings"} | ({"cuda_reason"} if facts["cuda_reason"] is None else set())
    assert {line.split()[0] for line in lines} - {"warning:"} == facts.keys() - silent


def test_bench_hands_its_words_on(monkeypatch):
    calls = []
    module = types.ModuleType("deepclust_ext.benchmark")
    module.OPS = ("mi_loss", "dhog_loss")
    module.main = lambda ops, *, json_path, device: calls.append((ops, json_path, device)) or 3
    monkeypatch.setitem(sys.modules, "deepclust_ext.benchmark", module)
    monkeypatch.setattr(deepclust_ext, "benchmark", module, raising=False)
    assert main(["bench"]) == 3
    assert main(["bench", "mi_loss", "dhog_loss", "--json", "a.json", "--device", "cuda"]) == 3
    assert calls == [([], None, "cpu"), (["mi_loss", "dhog_loss"], "a.json", "cuda")]


def test_help_shows_the_configuration_in_force(capfd):
    assert main(["fit", "dhog", "--config", "small", "--help"]) == 0
    out = " ".join(capfd.readouterr().out.split())
    assert "--augmentation AUGMENTATION" in out
    assert "(default: digits)" in out
    assert "Weight of the push" in out
    for words in (
        ["--help"],
        ["fit", "--help"],
        ["predict", "--help"],
        ["evaluate", "-h"],
        ["info", "-h"],
        ["bench", "-h"],
    ):
        assert main(words) == 0
        assert capfd.readouterr().out.startswith("usage: deepclust")
    assert main(["--version"]) == 0
    assert capfd.readouterr().out == f"deepclust_ext {deepclust_ext.__version__}\n"


def test_info_does_not_import_the_trainers_packages():
    script = (
        "import sys; from deepclust_ext.cli import main; main(['info']); "
        "sys.exit(any(name in sys.modules for name in ('sklearn', 'scipy', 'torchvision', 'jsonargparse')))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0
