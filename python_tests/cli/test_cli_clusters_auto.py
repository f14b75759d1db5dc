"""`--clusters auto`: a number with its neighbours, in the terminal and in files, for every method."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.clidata import SETTINGS, write_folder

from deepclust_ext.cli import main
from deepclust_ext.commands import _clusters


def write(path, k=5, n=400):
    rng = np.random.default_rng(0)
    x = 3 * rng.normal(size=(k, 12))[np.arange(n) % k] + rng.normal(size=(n, 12))
    np.savez(path, embeddings=x.astype(np.float32))
    return str(path)


@pytest.mark.parametrize("method", ["kmeans", "affinity"])
def test_the_number_and_its_neighbours(tmp_path, capfd, monkeypatch, method):
    run = tmp_path / "run"
    words = ["fit", method, "--data", write(tmp_path / "a.npz"), "--out", str(run), "--clusters", "auto"]
    assert main(words) == 0
    out = capfd.readouterr().out.splitlines()
    assert out[0].split() == ["clusters,", "best", "first", "gap", "stability", "largest", "gap"]
    assert out[1].split()[0] == "5"
    assert out[1].split()[-3:] == ["6", "of", "6"]
    shown = [line for line in out if line.startswith("taken: ")]
    assert shown == ["taken: 5; --clusters N takes another"]
    assert f"{method}: 400 embeddings of 12 dimensions from a.npz, 5 clusters, no training" in out
    metrics = json.loads((run / "metrics.json").read_text())
    choice = metrics["clusters_auto"]
    assert metrics["n_clusters"] == choice["n_clusters"] == choice["candidates"][0]["n_clusters"] == 5
    assert len(choice["candidates"]) == out.index(shown[0]) - 1
    assert choice["curve"][3]["n_clusters"] == 5
    assert choice["curve"][3]["gap"] == max(point["gap"] for point in choice["curve"])
    # A run goes on with the number that it began with.
    monkeypatch.setattr(_clusters, "count_clusters", lambda *_, **__: pytest.fail("counted again"))
    (run / "labels.csv").unlink()
    assert main([*words, "--resume", "auto", "--quiet"]) == 0
    assert json.loads((run / "metrics.json").read_text())["clusters_auto"] == choice


def test_a_method_that_trains_takes_the_number_of_the_pixels(tmp_path, capfd):
    (tmp_path / "tiny.yaml").write_text(SETTINGS)
    photos = write_folder(tmp_path / "photos", 200)
    words = ["fit", "dhog", "--config", str(tmp_path / "tiny.yaml"), "--data", str(photos), "--epochs", "1"]
    assert main([*words, "--out", str(tmp_path / "run"), "--clusters", "auto", "--seeds", "0-1"]) == 0
    assert "4 clusters, 1 epoch" in capfd.readouterr().out
    for seed in (0, 1):
        metrics = json.loads((tmp_path / "run" / f"seed-{seed}" / "metrics.json").read_text())
        assert metrics["clusters_auto"]["of"] == "pixels"
        assert metrics["n_clusters"] == 4


def test_data_without_gaps_and_studies_are_refused(tmp_path, capfd):
    np.savez(tmp_path / "a.npz", embeddings=np.ones((40, 3), np.float32))
    words = ["--data", str(tmp_path / "a.npz"), "--out", str(tmp_path / "run"), "--clusters", "auto"]
    assert main(["fit", "kmeans", *words]) == 2
    assert "--clusters must be a number here: merging shows no gap in these data" in capfd.readouterr().err
    assert main(["study", "halting", *words]) == 2
    assert "study: --clusters must be a number, got auto" in capfd.readouterr().err
    assert main(["fit", "kmeans", *words[:-1], "many"]) == 2
    assert "--clusters must be a whole number or auto, got many" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()
