"""The command line on embeddings: fit, predict and evaluate of files that hold them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.clidata import rows

from deepclust_ext.cli import main


def write(path, n=200, seed=0):
    """Four clusters of 10-dimensional points with paths and classes."""
    y = np.arange(n) % 4
    x = 3 * np.random.default_rng(5).normal(size=(4, 10))[y] + np.random.default_rng(seed).normal(size=(n, 10))
    np.savez(path, embeddings=x.astype(np.float16), y=y, paths=[f"photos/{i:03d}.jpg" for i in range(n)])
    return path


def test_kmeans_from_a_file_to_labels_and_scores(tmp_path, capfd):
    data, run = write(tmp_path / "a.npz"), tmp_path / "run"
    assert main(["fit", "kmeans", "--data", str(data), "--clusters", "4", "--out", str(run)]) == 0
    out = capfd.readouterr().out.splitlines()
    assert out[0] == "kmeans: 200 embeddings of 10 dimensions from a.npz, 4 clusters, no training"
    assert [line.split()[0] for line in out[1:]] == ["method", "kmeans", "labels:"]
    found = rows(run / "labels.csv")
    assert found[7]["path"] == "photos/007.jpg"
    assert len({row["cluster"] for row in found}) == 4
    assert main(["evaluate", str(run)]) == 0
    assert "k-means on" not in capfd.readouterr().out
    assert json.loads((run / "metrics.json").read_text())["evaluation"]["train"]["nmi"] == 1.0

    # New items, and the old ones again.
    assert main(["predict", str(run), "--data", str(write(tmp_path / "b.npz", 60, seed=1))]) == 0
    assert capfd.readouterr().out.startswith("60 embeddings, 4 of 4 clusters; labels: ")
    assert len(rows(run / "predictions.csv")) == 60
    assert main(["predict", str(run), "--data", str(data), "--out", str(tmp_path / "p.csv"), "--quiet"]) == 0
    assert (tmp_path / "p.csv").read_bytes() == (run / "labels.csv").read_bytes()
    # The embeddings that a run leaves are data as well.
    again = ["fit", "kmeans", "--data", str(run / "embeddings.npz"), "--clusters", "4", "--out", str(tmp_path / "c")]
    assert main([*again, "--quiet"]) == 0


def test_seeds_of_a_method_without_training(tmp_path, capfd):
    data = write(tmp_path / "a.npz")
    command = ["fit", "kmeans", "--data", str(data), "--clusters", "4", "--seeds", "0-1", "--out", str(tmp_path / "r")]
    assert main([*command, "--n-components", "3"]) == 0
    out = capfd.readouterr().out
    assert "kmeans, 2 seeds" in out
    assert "k-means on" not in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit", "deepcluster", "--data", "{npz}", "--out", "{out}"], "DeepCluster: 'data' must be images, got embed"),
        (["fit", "kmeans", "--data", "{npz}", "--out", "{out}", "--image-size", "8"], "--image-size' must be left out"),
        (["fit", "kmeans", "--data", "{npz}", "--out", "{out}", "--folder-labels"], "unless 'data' is a folder"),
        (["fit", "kmeans", "--data", "{npz}", "--out", "{out}", "--export", "copy"], "must come with a folder of im"),
        (["fit", "kmeans", "--data", "{npz}", "--out", "{out}", "--clusters", "999"], "at most the number of embed"),
        (["study", "halting", "--data", "{npz}", "--out", "{out}"], "study: --data must be images, got embeddings"),
    ],
)
def test_what_embeddings_cannot_do_is_said_in_a_sentence(tmp_path, capfd, words, message):
    npz, out = write(tmp_path / "a.npz"), tmp_path / "out"
    assert main([word.format(npz=npz, out=out) for word in words]) == 2
    assert message in capfd.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("method", ["dhog", "iic"])
def test_heads_take_the_configuration_for_embeddings_by_themselves(tmp_path, capfd, method):
    data, run = write(tmp_path / "a.npz"), tmp_path / "run"
    small = ["--clusters", "4", "--n-components", "5", "--n-neighbors", "8", "--epochs", "2", "--batch-size", "50"]
    assert main(["fit", method, "--data", str(data), "--out", str(run), *small]) == 0
    captured = capfd.readouterr()
    assert "k-means on embeddings (10 starts)" in captured.out
    config = (run / "config.yaml").read_text()
    assert "augmentation: neighbours" in config
    assert "network: rows" in config
    assert ("alpha: 0.0\n" in config) == (method == "iic")
    assert main(["predict", str(run), "--data", str(data), "--quiet"]) == 0
    assert (run / "predictions.csv").read_bytes() == (run / "labels.csv").read_bytes()
    assert main(["evaluate", str(run)]) == 0
    assert "k-means on embeddings" in capfd.readouterr().out
    # A configuration of images that is named is taken, and refused in a sentence.
    words = ["fit", method, "--config", "small", "--data", str(data), "--out", str(tmp_path / "b")]
    assert main(words) == 2
    assert "for embeddings, got 'digits'" in capfd.readouterr().err
