"""Photographs, a backbone and one command: embed, fit, predict and evaluate with a network from elsewhere."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from support import toynets
from support.clidata import rows, write_folder

from deepclust_ext.cli import main
from deepclust_ext.data import load_items

TINY = ["--backbone", "support.toynets:tiny"]


@pytest.fixture
def photos(tmp_path):
    write_folder(tmp_path / "photos", 40, nested=True)
    for path in (tmp_path / "photos").rglob("*"):
        os.utime(path, (1e9, 1e9))
    return tmp_path / "photos"


def test_embed_then_fit(tmp_path, photos, capfd):
    (photos / "broken.png").write_bytes(b"no image")
    out = tmp_path / "embeddings.npz"
    words = ["embed", *TINY, "--data", str(photos), "--out", str(out), "--device", "cpu"]
    assert main(words) == 0
    captured = capfd.readouterr()
    assert captured.out.startswith("40 embeddings of 6 dimensions, 40 of them new, ")
    assert captured.out.endswith(f" images per second; embeddings: {out}\n")
    assert "1 file skipped, the first 'broken.png'" in captured.err
    assert rows(tmp_path / "embeddings-skipped.csv")[0]["path"] == "broken.png"
    assert main(words) == 0
    assert "40 embeddings of 6 dimensions, 0 of them new; embeddings" in capfd.readouterr().out
    words = ["fit", "kmeans", "--data", str(out), "--clusters", "4", "--out", str(tmp_path / "run"), "--quiet"]
    assert main(words) == 0
    assert rows(tmp_path / "run" / "labels.csv")[0]["path"] == load_items(out).names[0]


def test_one_command_from_photographs_to_folders_and_later_ones(tmp_path, photos, capfd, monkeypatch):
    run = tmp_path / "runs" / "a"
    fit = ["fit", "kmeans", "--data", str(photos), *TINY, "--clusters", "4", "--out", str(run)]
    assert main([*fit, "--export", "copy", "--folder-labels"]) == 0
    captured = capfd.readouterr()
    assert captured.out.startswith(f"kmeans: 40 embeddings of 6 dimensions from {photos}, 4 clusters, no training")
    assert "40 of them new" in captured.err
    found = {row["path"]: row["cluster"] for row in rows(run / "labels.csv")}
    exported = {path.relative_to(run / "clusters").as_posix() for path in (run / "clusters").rglob("*.png")}
    assert exported == {f"{cluster}/{name}" for name, cluster in found.items()}
    assert load_items(run / "features.npz").names == tuple(found)

    # Again, beside it and in it: the same embeddings, without the network's work.
    def embedded(words):
        toynets.CALLS.clear()
        assert main(words) == 0
        return sum(toynets.CALLS) - 2  # the two that tell how wide features are

    assert embedded([*fit[:-1], str(tmp_path / "runs" / "b"), "--quiet"]) == 0
    assert embedded([*fit, "--folder-labels", "--resume", "auto", "--quiet", "--no-cache"]) == 0
    # Evaluated from the run folder alone.
    toynets.CALLS.clear()
    assert main(["evaluate", str(run), "--quiet"]) == 0
    assert toynets.CALLS == []
    assert json.loads((run / "metrics.json").read_text())["evaluation"]["train"]["nmi"] > 0.5

    # The folder has grown: only what is new is embedded, and the old have their labels.
    write_folder(photos / "later", 5, seed=9)
    predict = ["predict", str(run), "--data", str(photos), "--quiet"]
    assert embedded([*predict, "--no-cache"]) == 5
    known = {row["path"]: row["cluster"] for row in rows(run / "predictions.csv")}
    assert {name: cluster for name, cluster in known.items() if name in found} == found
    assert len(known) == 45


def test_predict_wants_the_weights_of_the_run(tmp_path, photos, capfd):
    weights, moved, other = (tmp_path / f"{name}.pth" for name in ("a", "moved", "other"))
    torch.save(toynets.Tiny().state_dict(), weights)
    run = tmp_path / "run"
    # Of k-means, whose labels are those of the nearest centroids: a merged cluster's are not always.
    words = ["fit", "kmeans", "--data", str(photos), *TINY, "--weights", str(weights), "--clusters", "4"]
    assert main([*words, "--out", str(run), "--quiet"]) == 0
    weights.rename(moved)
    predict = ["predict", str(run), "--data", str(photos), "--quiet"]
    assert main(predict) == 2
    assert "'weights' must be a file that is there" in capfd.readouterr().err
    assert main([*predict, "--weights", str(moved)]) == 0
    assert (run / "predictions.csv").read_bytes() == (run / "labels.csv").read_bytes()
    torch.save(toynets.Tiny().state_dict(), other)
    assert main([*predict, "--weights", str(other)]) == 2
    assert "was fitted on embeddings of a network with other weights" in capfd.readouterr().err


@pytest.mark.parametrize("method", ["dhog", "iic"])
def test_heads_on_a_backbone(tmp_path, photos, method):
    run = tmp_path / "run"
    small = ["--n-components", "5", "--n-neighbors", "8", "--epochs", "1", "--batch-size", "20", "--clusters", "4"]
    words = ["fit", method, "--data", str(photos), *TINY, *small, "--out", str(run), "--quiet", "--device", "cpu"]
    assert main(words) == 0
    assert "augmentation: neighbours" in (run / "config.yaml").read_text()


def test_several_seeds_embed_once(tmp_path, photos):
    toynets.CALLS.clear()
    words = ["fit", "kmeans", "--data", str(photos), *TINY, "--clusters", "4", "--seeds", "0-1", "--quiet"]
    assert main([*words, "--out", str(tmp_path / "runs"), "--no-cache"]) == 0
    assert sum(toynets.CALLS) == 42
    first, second = (tmp_path / "runs" / f"seed-{seed}" / "features.npz" for seed in (0, 1))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["fit", "jule", "--data", "{photos}", *TINY, "--out", "{out}"],
            "--backbone must come with a method that takes",
        ),
        (["fit", "kmeans", "--data", "{photos}", "--weights", "a.pth", "--out", "{out}"], "must come with --backbone"),
        (["fit", "kmeans", "--data", "{npz}", *TINY, "--out", "{out}"], "'data' must be images, got embeddings"),
        (["embed", *TINY, "--data", "{photos}", "--out", "{out}.csv"], "--out must be a file that ends in .npz"),
        (["embed", *TINY, "--data", "{photos}", "--out", "{npz}"], "a file that embed wrote, got embeddings of others"),
        (["embed", *TINY, "--data", "{photos}", "--out", "{out}/a.npz"], "--out must be in a folder that is there"),
        (["embed", *TINY, "--data", "{photos}", "--out", "{out}.npz", "--weights", "a.pth"], "a file that is there"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(tmp_path, photos, capfd, words, message):
    npz, out = tmp_path / "other.npz", tmp_path / "out"
    np.savez(npz, embeddings=np.zeros((4, 5), np.float32))
    assert main([word.format(photos=photos, npz=npz, out=out) for word in words]) == 2
    assert message in capfd.readouterr().err
    assert not out.exists()
    assert load_items(npz).image_shape == (5,)
