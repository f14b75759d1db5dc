"""`deepclust evaluate`, `info`, `bench` and the help."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types

import numpy as np
import pytest
from sklearn.metrics import silhouette_score
from support.clidata import SETTINGS, pictures, rows, write_folder

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


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory, run):
    """A run on a folder without classes, with the classes of its files."""
    folder = tmp_path_factory.mktemp("unlabelled")
    write_folder(folder / "photos", nested=True)
    words = ["fit", "dhog", "--config", str(run / "tiny.yaml"), "--data", str(folder / "photos"), "--quiet"]
    assert main([*words, "--out", str(folder / "run")]) == 0
    names = [row["path"] for row in rows(folder / "run" / "labels.csv")]
    return folder, {name: name.split("/")[0] for name in names}


def evaluation(folder, *more):
    assert main(["evaluate", str(folder / "run"), *map(str, more)]) == 0
    return json.loads((folder / "run" / "metrics.json").read_text())["evaluation"]


def write_labels(path, table, header="path,label"):
    path.write_text("\n".join([header, *(f"{name},{label}" for name, label in table)]) + "\n")
    return path


def test_label_free_figures_are_complete(unlabelled, capfd):
    folder, _ = unlabelled
    method = Method.load(folder / "run")
    found = evaluation(folder)["diagnostics"]
    assert found["nmi_views"] == pytest.approx(method.nmi_views_[method.selected_head_])
    embeddings = np.load(folder / "run" / "embeddings.npz")["embeddings"]
    assert found["silhouette"] == pytest.approx(float(silhouette_score(embeddings, method.labels_)), abs=1e-6)
    out = capfd.readouterr().out
    assert "NMI(z, z')" in out
    assert "(silhouette of all 120)" in out


def test_the_silhouette_of_many_is_a_sample_and_says_so(unlabelled, capfd, monkeypatch):
    monkeypatch.setattr("deepclust_ext.commands.evaluate.SILHOUETTES", 50)
    assert evaluation(unlabelled[0])["diagnostics"]["silhouette_images"] == 50
    assert "(silhouette of 50 of 120, drawn with a fixed seed)" in capfd.readouterr().out


def test_labels_that_come_later(unlabelled, tmp_path, capfd):
    folder, kinds = unlabelled
    everything = evaluation(folder, "--folder-labels")
    capfd.readouterr()
    # All of them, in another order and under other spellings: the same scores.
    table = [(f"./{name}", kind) for name, kind in reversed(kinds.items())]
    table[0] = (folder / "photos" / table[0][0], table[0][1])
    found = evaluation(folder, "--labels", write_labels(tmp_path / "all.csv", table))
    assert capfd.readouterr().err == ""
    assert found["train"] == everything["train"]
    assert found["kmeans_pixels"]["nmi"] == everything["kmeans_pixels"]["nmi"]
    assert found["probes"]["knn"] == everything["probes"]["knn"]
    assert found["labels"]["classes"] == ["kind0", "kind1", "kind2", "kind3"]
    assert found["diagnostics"] == everything["diagnostics"]


def test_labels_of_some_images_score_those_and_name_the_rest(unlabelled, tmp_path, capfd):
    folder, kinds = unlabelled
    some = list(kinds.items())[10:70]
    strange = [("nowhere.png", "kind0"), ("kind0/gone.png", "kind0")]
    path = write_labels(tmp_path / "some.csv", [*some, *strange, (next(iter(kinds)), "")], header="\ufeffpath,label")
    found = evaluation(folder, "--labels", path)
    err = capfd.readouterr().err
    assert f"2 rows of {path} name no image of the run: 'nowhere.png', 'kind0/gone.png'" in err
    assert "60 of 120 images have no label, and are in no score: " in err
    method = Method.load(folder / "run")
    names = list(kinds)
    index = [names.index(name) for name, _ in some]
    classes = np.unique([kind for _, kind in some], return_inverse=True)[1]
    assert found["train"] == pytest.approx(scores(method.labels_[index], classes))
    assert found["labels"]["unmatched"] == ["nowhere.png", "kind0/gone.png"]
    assert (found["labels"]["n_images"], found["labels"]["n_unlabelled"]) == (60, 60)
    assert found["probes"]["tested_on"] == "12 labelled images held out"
    assert found["diagnostics"]["n_images"] == 120


def test_few_labels_are_enough_for_scores(unlabelled, tmp_path, capfd):
    folder, kinds = unlabelled
    found = evaluation(folder, "--labels", write_labels(tmp_path / "few.csv", list(kinds.items())[:2]))
    assert {"train", "probes", "neighbour_purity"} <= found.keys()
    assert not {"kmeans_pixels", "clusterers"} & found.keys()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,label\na,b\n", "--labels must be a CSV file with the columns path and label, got file, label in"),
        ("", "columns path and label, got none in"),
        ("path,label\nx.png,a\ny.png,b\n", "at least two images of the run a label, got 0: the file names 'x.png'"),
        ("path,label\n{0},a\n{1},b\n{0},c\n", "one label, got 'a' and, in line 4 of"),
        (None, "--labels must be a file that can be read, got"),
    ],
)
def test_labels_that_cannot_be_used(unlabelled, tmp_path, capfd, content, message):
    folder, kinds = unlabelled
    path = tmp_path / "labels.csv"
    if content is not None:
        path.write_text(content.format(*kinds))
    assert main(["evaluate", str(folder / "run"), "--labels", str(path)]) == 2
    assert message in capfd.readouterr().err


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


@pytest.mark.parametrize("words", [["--simd", "avx2"], ["--simd=avx2"]])
def test_bench_at_a_level_is_a_process_that_is_held_to_it(words, monkeypatch):
    from deepclust_ext.benchmark import held

    calls = []
    monkeypatch.setattr(held, "run_at", lambda level, rest: calls.append((level, rest)) or 0)
    assert main(["bench", "kmeans", *words, "--json", "a.json"]) == 0
    assert calls == [("avx2", ["kmeans", "--json", "a.json"])]


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
