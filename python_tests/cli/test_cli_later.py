"""New images later: only they are labelled, a run says what changed, and clusters keep their numbers."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from support.clidata import rows, write_folder

from deepclust_ext.cli import main
from deepclust_ext.data import stored as reading


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A folder of 60 images and a run of k-means on it."""
    where = tmp_path_factory.mktemp("later")
    write_folder(where / "photos", 60)
    assert main(kmeans(where / "photos", where / "run")) == 0
    return where


def kmeans(data, out, *more, seed=0):
    words = ["fit", "kmeans", "--data", str(data), "--out", str(out), "--clusters", "4", "--seed", str(seed)]
    return [*words, "--quiet", *more]


@pytest.fixture
def grown(fitted, tmp_path):
    """A copy of both, with twelve images more."""
    where = tmp_path / "copy"
    shutil.copytree(fitted, where)
    config = where / "run" / "config.yaml"
    config.write_text(config.read_text().replace(str(fitted), str(where)))
    write_folder(where / "new", 12, seed=5)
    for file in (where / "new").iterdir():
        file.rename(where / "photos" / f"z{file.name}")
    return where


def predict(where, *more):
    return main(["predict", str(where / "run"), "--data", str(where / "photos"), *more])


def test_only_new_images_are_read_labelled_and_appended(grown, monkeypatch, capfd):
    read = []
    original = reading.read_file

    def counting(path, name, *rest):
        read.append(name)
        return original(path, name, *rest)

    monkeypatch.setattr(reading, "read_file", counting)
    assert predict(grown, "--only-new") == 0
    assert "12 new images, " in capfd.readouterr().out
    assert len(read) == 12
    out = grown / "run" / "predictions.csv"
    first = out.read_bytes()
    assert all(row["path"].startswith("z") for row in rows(out))
    # Nothing new, and then one more.
    assert predict(grown, "--only-new") == 0
    assert "0 new images" in capfd.readouterr().out
    assert out.read_bytes() == first
    shutil.copy(grown / "photos" / "z0003.png", grown / "photos" / "again.png")
    assert predict(grown, "--only-new", "--quiet") == 0
    assert len(read) == 13
    assert out.read_bytes().startswith(first)
    found = {row["path"]: row["cluster"] for row in rows(out)}
    assert len(found) == 13
    assert found["again.png"] == found["z0003.png"]
    # Without the option all are labelled, the same way.
    assert predict(grown, "--quiet") == 0
    everything = {row["path"]: row["cluster"] for row in rows(out)}
    assert len(everything) == 73
    assert found.items() <= everything.items()


def test_names_of_another_folder_are_new(fitted, tmp_path, capfd):
    other = write_folder(tmp_path / "other", 60, seed=9)
    words = ["predict", str(fitted / "run"), "--data", str(other), "--out", str(tmp_path / "o.csv"), "--only-new"]
    assert main(words) == 0
    assert "60 new images" in capfd.readouterr().out
    for more, message in (["--export", "copy"], "without --export"), (["--out", "-"], "a file in --out, got -"):
        assert main([*words, *more]) == 2
        assert f"--only-new must come with{message.removeprefix('with')}"[:24] in capfd.readouterr().err
    (tmp_path / "o.csv").write_text("path,cluster,confidence\n0000.png,1,0.5\n")
    assert main(words) == 2
    assert "its columns are not path,cluster,confidence,distance" in capfd.readouterr().err
    (tmp_path / "o.csv").write_text("a,b\n1,2\n")
    assert main(words) == 2
    assert "is no labels.csv" in capfd.readouterr().err


def test_embeddings_that_grew(tmp_path, capfd):
    x = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    np.savez(tmp_path / "a.npz", embeddings=x[:40], paths=[f"{i}.jpg" for i in range(40)])
    assert main(kmeans(tmp_path / "a.npz", tmp_path / "run")) == 0
    np.savez(tmp_path / "a.npz", embeddings=x, paths=[f"{i}.jpg" for i in range(50)])
    for count in (10, 0):
        assert main(["predict", str(tmp_path / "run"), "--data", str(tmp_path / "a.npz"), "--only-new"]) == 0
        assert f"{count} new " in capfd.readouterr().out
    assert [row["path"] for row in rows(tmp_path / "run" / "predictions.csv")] == [f"{i}.jpg" for i in range(40, 50)]


def test_a_resume_on_other_data_says_what_changed(grown, capfd):
    (grown / "photos" / "0004.png").unlink()
    assert main(kmeans(grown / "photos", grown / "run", "--resume", "auto")) == 2
    error = capfd.readouterr().err
    assert "12 of 71 images are new, the first 'z0000.png'; 1 of 60 are gone, the first '0004.png'." in error
    assert "fit --warm-start with a new folder" in error
    shutil.rmtree(grown / "photos")
    write_folder(grown / "photos", 60, seed=1)
    assert main(kmeans(grown / "photos", grown / "run", "--resume", "auto")) == 2
    assert "The images have the same names, and other values." in capfd.readouterr().err


def test_a_warm_start_keeps_the_numbers(grown, capfd):
    data, old = grown / "photos", {row["path"]: row["cluster"] for row in rows(grown / "run" / "labels.csv")}
    same = []
    for seed in (1, 2, 3):
        cold, warm = grown / f"cold{seed}", grown / f"warm{seed}"
        assert main(kmeans(data, cold, seed=seed)) == 0
        assert main(kmeans(data, warm, "--warm-start", str(grown / "run"), seed=seed)) == 0
        found = {row["path"]: row["cluster"] for row in rows(warm / "labels.csv")}
        assert all(found[name] == cluster for name, cluster in old.items())
        before = {row["path"]: row["cluster"] for row in rows(cold / "labels.csv")}
        same.append(before == found)
        # Only the numbers are others, and new images follow.
        assert len(set(zip(before.values(), found.values(), strict=False))) == 4
        assert main(["predict", str(warm), "--data", str(data), "--quiet"]) == 0
        assert (warm / "predictions.csv").read_bytes() == (warm / "labels.csv").read_bytes()
    assert not all(same)
    metrics = json.loads((warm / "metrics.json").read_text())["warm_start"]
    assert metrics["n_images"] == metrics["n_kept"] == 60
    assert metrics["new_clusters"] == metrics["lost_clusters"] == []
    content = (warm / "labels.csv").read_bytes()
    assert main(kmeans(data, warm, "--warm-start", str(grown / "run"), "--resume", "auto", seed=3)) == 0
    assert (warm / "labels.csv").read_bytes() == content
    assert main(["evaluate", str(warm), "--quiet"]) == 0


def test_a_warm_start_needs_images_in_common(fitted, tmp_path, capfd):
    np.savez(tmp_path / "a.npz", embeddings=np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32))
    assert main(kmeans(tmp_path / "a.npz", tmp_path / "run", "--warm-start", str(fitted / "run"))) == 2
    assert "must have clustered some of the 40 embeddings, got none of the same name" in capfd.readouterr().err
    assert main(kmeans(tmp_path / "a.npz", tmp_path / "run", "--warm-start", str(tmp_path))) == 2
    assert "must be the folder of a finished run: it has no labels.csv" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()
