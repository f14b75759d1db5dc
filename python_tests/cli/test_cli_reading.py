"""How a folder's files are read, from the command line: a run says how, and predictions follow it."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image
from support.clidata import SETTINGS, pictures, rows

from deepclust_ext.cli import main


@pytest.fixture
def words(tmp_path):
    """The words of `deepclust fit` on a folder of files of two frames in 12 bits."""
    (tmp_path / "tiny.yaml").write_text(SETTINGS)
    (tmp_path / "deep").mkdir()
    images = pictures(60)[0].astype(np.uint16) * 16
    for number in range(0, 60, 2):
        first, second = map(Image.fromarray, images[number : number + 2])
        first.save(tmp_path / "deep" / f"{number:02d}.tif", save_all=True, append_images=[second])
    fit = ["fit", "dhog", "--config", str(tmp_path / "tiny.yaml"), "--data", str(tmp_path / "deep"), "--epochs", "1"]
    return [*fit, "--out", str(tmp_path / "run"), "--quiet"]


def test_predictions_read_as_the_run_did(tmp_path, words, capfd):
    assert main([*words, "--stretch", "4095", "--frames", "all", "--max-pixels", "100"]) == 0
    assert len(rows(tmp_path / "run" / "labels.csv")) == 60
    capfd.readouterr()
    assert main(["predict", str(tmp_path / "run"), "--data", str(tmp_path / "deep"), "--out", "-"]) == 0
    assert capfd.readouterr().out == (tmp_path / "run" / "labels.csv").read_text()
    assert main(["evaluate", str(tmp_path / "run"), "--quiet"]) == 0


def test_what_may_surprise_is_said_with_the_option_that_changes_it(words, capfd):
    assert main(words) == 0
    lines = capfd.readouterr().err.splitlines()
    assert any("30 files have more than one frame" in line and "--frames='all'" in line for line in lines)
    assert any("are nearly black" in line and "--stretch=4095 makes 4095 white" in line for line in lines)
    assert main([*words, "--frames", "all", "--export", "copy"]) == 2
    assert "--export must come without --frames all" in capfd.readouterr().err
    assert main([*words, "--stretch", "x"]) == 2
    assert "--stretch must be a whole number or null, got x" in capfd.readouterr().err


def test_a_second_run_beside_the_first_decodes_nothing(tmp_path, words, monkeypatch):
    from deepclust_ext.data import cache, stored

    monkeypatch.setattr(cache, "WORTH", 0.0)
    for path in (tmp_path / "deep").iterdir():
        os.utime(path, (1e9, 1e9))
    assert main([*words, "--image-size", "8"]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(stored, "read_file", lambda *_: pytest.fail("decoded"))
        assert main([*words, "--image-size", "8", "--out", str(tmp_path / "other")]) == 0
        assert main(["evaluate", str(tmp_path / "run"), "--quiet"]) == 0
        assert main(["predict", str(tmp_path / "run"), "--data", str(tmp_path / "deep"), "--quiet"]) == 0
    assert (tmp_path / "other" / "labels.csv").read_bytes() == (tmp_path / "run" / "labels.csv").read_bytes()
    assert (tmp_path / ".deepclust-cache").is_dir()
    # Without it, nothing is read from it or written to it.
    elsewhere = ["--out", str(tmp_path / "sub" / "run"), "--no-cache"]
    assert main([*words, "--image-size", "8", *elsewhere]) == 0
    assert not (tmp_path / "sub" / ".deepclust-cache").exists()
