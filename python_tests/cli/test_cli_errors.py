"""Input that cannot work ends in one sentence and exit code 2, and leaves no run folder behind."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from deepclust_ext.cli import main
from deepclust_ext.runs import RunDirectory

TINY = ["--set", "network=tiny8", "width=0.25", "n_heads=2", "hidden=8", "augmentation=digits", "epochs=1",
        "batch_size=20", "device=cpu", "--quiet"]  # fmt: skip


@pytest.fixture
def images(tmp_path):
    """An archive of 60 images."""
    path = tmp_path / "images.npz"
    np.savez(path, x=np.random.default_rng(0).integers(0, 256, (60, 8, 8)).astype(np.uint8))
    return str(path)


@pytest.fixture
def refused(capfd):
    """`refused(words, pattern)` runs the command and holds its one sentence against the pattern."""

    def check(words, pattern, code=2):
        capfd.readouterr()
        assert main([str(word) for word in words]) == code
        out, err = capfd.readouterr()
        assert out == ""
        assert err.count("\n") == 1, err
        assert err.startswith("deepclust: ")
        assert re.search(pattern, err), err

    return check


def fit(data, out, *more):
    return ["fit", "dhog", "--data", data, "--out", out, *TINY, *more]


def test_data_that_cannot_be_clustered(tmp_path, refused):
    out = tmp_path / "run"
    (tmp_path / "empty").mkdir()
    refused(fit(tmp_path / "empty", out), "must hold images .* got none")
    (tmp_path / "one").mkdir()
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(tmp_path / "one" / "a.png")
    refused(fit(tmp_path / "one", out), "at least 2 images, got only 1 image")
    refused(fit("no-such-data", out), "known names: digits, mnist5k")
    np.savez(tmp_path / "keys.npz", pictures=np.zeros((5, 8, 8)))
    refused(fit(tmp_path / "keys.npz", out), "must hold the keys x .* got the keys: pictures")
    broken = np.zeros((5, 8, 8), dtype=np.float32)
    broken[3, 0, 0] = np.nan
    np.savez(tmp_path / "nan.npz", x=broken)
    refused(fit(tmp_path / "nan.npz", out), "NaN or infinite pixels in 1 of 5 images, the first at index 3")
    (tmp_path / "half.npz").write_bytes(b"PK broken")
    refused(fit(tmp_path / "half.npz", out), "must be a readable .npz archive")
    Image.fromarray(np.zeros((9, 8), dtype=np.uint8)).save(tmp_path / "one" / "b.png")
    refused(fit(tmp_path / "one", out), r"of one size unless --image-size is given")
    assert not out.exists()


def test_command_lines_that_make_no_sense(tmp_path, images, refused):
    out = tmp_path / "run"
    refused([], "COMMAND; see deepclust --help")
    refused(["train"], "invalid choice: 'train'")
    methods = "affinity, deepcluster, dhog, jule, kmeans, super-and, vcami, iic, and, instance"
    refused(["fit"], f"METHOD must come first and be one of {methods}, got nothing")
    refused(["fit", "dgog", "--data", images], "got 'dgog'")
    refused(["fit", "dhog", "--data", images], "required: --out; see deepclust fit dhog --help")
    refused(fit(images, out, "--clusters", "61"), r"'--clusters' must be at most the number of images \(60\), got 61")
    refused(fit(images, out, "--clusters", "two"), "--clusters must be a whole number or auto, got two")
    refused(fit(images, out, "--over-clusters", "2.5"), "--over-clusters must be a whole number or null, got 2.5")
    refused(fit(images, out, "--resume", "perhaps"), "--resume must be never, auto or always, got perhaps")
    refused(fit(images, out, "--image-size", "x"), "--image-size must be a whole number or null, got x")
    refused(fit(images, out, "--epoch", "3"), "unrecognized arguments: --epoch")
    refused(fit(images, out, "--alpha", "-1"), "'alpha' must be finite and at least 0")
    refused(fit(images, out, "--config", "smal"), "must be one of .*small.*, or the path of a .yaml file, got 'smal'")
    refused(fit(images, out, "--set", "beta=1"), "must name a parameter of the method, got 'beta'; known: alpha, ")
    refused(fit(images, out, "--set", "beta"), "--set must be followed by key=value, got 'beta'")
    refused(fit(images, out, "--seed", "1", "--seeds", "0-1"), "--seeds: not allowed with argument --seed")
    for seeds in ("4-0", "a", "0-", "0,,1"):
        refused(fit(images, out, "--seeds", seeds), "--seeds must be a range such as 0-4")
    refused(fit(images, out, "--seeds", "0-2,1"), "every seed once")
    refused(fit(images, out, "--export", "copy"), "--export must come with a folder of images")
    refused(fit(str(tmp_path / "photos"), out, "--export", "copy"), "photos, and there is no such folder")
    refused(fit(images, out, "--folder-labels"), "'--folder-labels' must be False unless 'data' is a folder")
    refused(fit(images, out, "--resume", "always"), "holds no run")
    refused(fit(images, out, "--set", "network=vgg"), "'network' must be one of")
    (tmp_path / "bad.yaml").write_text("lr: [1\nepochs: 3")
    refused(fit(images, out, "--config", tmp_path / "bad.yaml"), "must be a readable YAML file")
    (tmp_path / "odd.yaml").write_text("lrate: 1")
    refused(fit(images, out, "--config", tmp_path / "odd.yaml"), "has unknown parameters lrate")
    assert not out.exists()


def test_run_folders_that_cannot_be_used(tmp_path, images, refused):
    out = tmp_path / "run"
    with RunDirectory(out):
        refused(fit(images, out), "is in use by process")
    assert main(fit(images, str(out))) == 0
    refused(fit(images, out), "already holds a run")
    np.savez(tmp_path / "other.npz", x=np.zeros((60, 8, 8), dtype=np.uint8))
    refused(fit(tmp_path / "other.npz", out, "--resume", "auto"), "is another one: the data's digest was")
    refused(fit(images, out, "--resume", "auto", "--set", "lr=0.5"), r"lr was 0\.001 and is now 0\.5")
    refused(fit(images, out, "--seeds", "0-1"), "holds a single run")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    refused(fit(images, tmp_path / "full"), "is not empty and holds no run")
    (tmp_path / "file").write_text("")
    refused(fit(images, tmp_path / "file"), "is a file")
    for command in (["predict", tmp_path / "full", "--data", images], ["evaluate", tmp_path / "full"]):
        refused(command, "holds no run")
    refused(["evaluate", out, "--data", tmp_path / "other.npz"], "was fitted on other images")
    with RunDirectory(out, mode="resume"):
        refused(["evaluate", out], "is in use by process")


def test_an_unfinished_run_and_several_runs_are_named(tmp_path, images, refused):
    with RunDirectory(tmp_path / "run") as folder:
        folder.write_config({"format": 1, "data": {}})
    refused(["predict", tmp_path / "run", "--data", images], "holds no checkpoint")
    assert main(fit(images, str(tmp_path / "runs"), "--seeds", "0-1")) == 0
    for command in (["predict", tmp_path / "runs", "--data", images], ["evaluate", tmp_path / "runs"]):
        refused(command, "holds 2 runs, one a seed; give one of them, such as .*seed-0")


def test_a_missing_extra_names_the_command_that_mends_it(tmp_path, images, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonargparse", None)
    refused(fit(images, tmp_path / "run"), r"'jsonargparse' is not installed; run pip install 'deepclust_ext\[train\]'")


def test_what_nobody_foresaw_is_short_and_shown_in_full_when_asked(tmp_path, images, refused, monkeypatch, capfd):
    from deepclust_ext.methods import Method

    def fail(*_, **__):
        raise KeyError("deep\n" * 1000)

    monkeypatch.setattr(Method, "fit", fail)
    refused(fit(images, tmp_path / "run"), r"unexpected KeyError: .* \.\.\. \(DEEPCLUST_DEBUG=1 shows", code=1)
    assert main(["--debug", *fit(images, str(tmp_path / "run2"))]) == 1
    assert "Traceback" in capfd.readouterr().err
    monkeypatch.setenv("DEEPCLUST_DEBUG", "1")
    assert main(fit("no-such-data", str(tmp_path / "run3"))) == 2
    assert "Traceback" in capfd.readouterr().err


def test_a_reader_that_goes_away_is_no_failure(tmp_path, images):
    assert main(fit(images, str(tmp_path / "run"))) == 0
    command = [sys.executable, "-m", "deepclust_ext", "predict", str(tmp_path / "run"), "--data", images, "--out", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 141
