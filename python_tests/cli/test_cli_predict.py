"""`deepclust predict`: labels for images that the run has not seen."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from support.clidata import SETTINGS, rows, write_folder

from deepclust_ext.cli import main
from deepclust_ext.methods import Method


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder of images and a finished run on it."""
    folder = tmp_path_factory.mktemp("predict")
    (folder / "tiny.yaml").write_text(SETTINGS)
    write_folder(folder / "images", nested=True)
    words = ["fit", "dhog", "--config", str(folder / "tiny.yaml"), "--data", str(folder / "images")]
    assert main([*words, "--out", str(folder / "run"), "--quiet"]) == 0
    return folder


def test_other_images_are_labelled(tmp_path, run, capfd):
    other = write_folder(tmp_path / "other", 20, seed=3)
    assert main(["predict", str(run / "run"), "--data", str(other), "--out", str(tmp_path / "found.csv")]) == 0
    assert "labels: " in capfd.readouterr().out
    found = rows(tmp_path / "found.csv")
    assert [row["path"] for row in found] == [f"{number:04d}.png" for number in range(20)]
    method = Method.load(run / "run")
    stack = np.stack([np.asarray(Image.open(other / row["path"])) for row in found])
    assert [int(row["cluster"]) for row in found] == method.predict(stack).tolist()
    assert [float(row["confidence"]) for row in found] == pytest.approx(method.predict_proba(stack).max(1), abs=1e-6)


def test_the_runs_own_images_get_their_own_labels(run, capfd):
    assert main(["predict", str(run / "run"), "--data", str(run / "images"), "--out", "-"]) == 0
    assert capfd.readouterr().out == (run / "run" / "labels.csv").read_text()


@pytest.mark.parametrize(
    ("out", "message"), [("", "must be a file, got the folder"), ("no/a.csv", "must be in a folder")]
)
def test_an_out_that_cannot_be_written_is_refused_before_the_work(tmp_path, run, capfd, monkeypatch, out, message):
    monkeypatch.setattr(Method, "predict_proba", lambda *_: pytest.fail("worked"))
    words = ["predict", str(run / "run"), "--data", str(run / "images"), "--out", str(tmp_path / out)]
    assert main(words) == 2
    assert f"--out {message}" in capfd.readouterr().err


def test_one_image_and_sorted_files(tmp_path, run, capfd):
    write_folder(tmp_path / "one", 1)
    words = ["predict", str(run / "run"), "--data", str(tmp_path / "one"), "--out", str(tmp_path / "a.csv")]
    assert main([*words, "--export", "copy", "--quiet"]) == 0
    cluster = rows(tmp_path / "a.csv")[0]["cluster"]
    assert (tmp_path / "clusters" / cluster / "0000.png").is_file()
    assert capfd.readouterr().out == ""


def test_images_that_do_not_fit_are_refused_or_made_to_when_asked(tmp_path, run, capfd):
    write_folder(tmp_path / "large", 8, size=16)
    words = ["predict", str(run / "run"), "--data", str(tmp_path / "large"), "--out", str(tmp_path / "a.csv")]
    assert main(words) == 2
    assert capfd.readouterr().err == (
        f"deepclust: predict: the images must be 8x8 pixels like the run's, got 16x16 in {tmp_path / 'large'}; "
        "--image-size 8 scales and crops them\n"
    )
    assert main([*words, "--image-size", "8"]) == 0
    colour = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)
    np.savez(tmp_path / "colour.npz", x=colour)
    words[3] = str(tmp_path / "colour.npz")
    capfd.readouterr()
    assert main(words) == 0
    assert "the images are made grey" in capfd.readouterr().err


def test_the_runs_image_size_holds_for_other_images(tmp_path, run, capfd):
    large = write_folder(tmp_path / "large", 40, size=16)
    words = ["fit", "dhog", "--config", str(run / "tiny.yaml"), "--data", str(large), "--out", str(tmp_path / "run")]
    assert main([*words, "--image-size", "8", "--epochs", "1", "--quiet"]) == 0
    capfd.readouterr()
    assert main(["predict", str(tmp_path / "run"), "--data", str(large), "--out", "-"]) == 0
    assert capfd.readouterr().out == (tmp_path / "run" / "labels.csv").read_text()
