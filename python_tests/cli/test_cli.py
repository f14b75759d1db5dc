"""The command line from a folder of images to labels.csv, whatever happens on the way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from support.clidata import SETTINGS, pictures, rows, write_folder

from deepclust_ext.cli import main
from deepclust_ext.methods import Method


def command(config, data, out):
    return ["fit", "dhog", "--config", str(config), "--data", str(data), "--out", str(out)]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(SETTINGS)
    return str(path)


@pytest.fixture
def fit(config, capfd):
    """`fit(out, data, *more)` runs `deepclust fit dhog` and returns its exit code, stdout and stderr."""

    def run(out, data, *more):
        code = main([*command(config, data, out), *more])
        return code, *capfd.readouterr()

    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory, config):
    """A folder of images and a finished run on it, shared by the tests that only read."""
    folder = tmp_path_factory.mktemp("shared")
    write_folder(folder / "images", nested=True)
    (folder / "images" / "broken.png").write_bytes(b"no image")
    assert main([*command(config, folder / "images", folder / "run"), "--quiet"]) == 0
    return folder


# fit


def test_a_flat_folder_becomes_labels(tmp_path, fit):
    data = write_folder(tmp_path / "images")
    code, out, err = fit(tmp_path / "run", data, "--export", "link")
    assert code == 0, err
    found = rows(tmp_path / "run" / "labels.csv")
    assert [row["path"] for row in found] == sorted(entry.name for entry in data.iterdir())
    assert all(0 <= float(row["confidence"]) <= 1 for row in found)
    # Each label is the network's for the very file that stands beside it.
    method = Method.load(tmp_path / "run")
    for row in found[::17]:
        with Image.open(data / row["path"]) as image:
            assert method.predict(np.asarray(image)[None])[0] == int(row["cluster"])
    assert len({row["cluster"] for row in found}) > 1
    for name in ("config.yaml", "metrics.json", "log.jsonl", "embeddings.npz", "checkpoint.pt"):
        assert (tmp_path / "run" / name).is_file()
    lines = out.splitlines()
    assert lines[0] == f"dhog: 120 images of 1x8x8 from {data}, 4 clusters, 8 epochs"
    assert lines[1].split("  ")[0] == "method"
    assert "occupancy entropy" in lines[1]
    assert lines[-1] == f"labels: {tmp_path / 'run' / 'labels.csv'}"
    assert "\r" not in out + err
    for row in found:
        link = tmp_path / "run" / "clusters" / row["cluster"] / row["path"]
        assert link.resolve() == (data / row["path"]).resolve()


def test_labels_are_scored_beside_k_means_and_change_nothing(tmp_path, fit):
    labelled = write_folder(tmp_path / "images", nested=True)
    code, out, err = fit(tmp_path / "run", labelled, "--folder-labels", "--export", "copy", "--set", "lr=1e-9")
    assert code == 0, err
    table = [line.split("  ") for line in out.splitlines() if line.startswith(("method", "dhog  ", "k-means"))]
    assert [cell.strip() for cell in table[0] if cell] == ["method", "ACC", "NMI", "ARI", "seconds"]
    assert table[2][0] == "k-means on pixels (10 starts)"
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert f"{metrics['kmeans_pixels']['nmi']:.4f}" in [cell.strip() for cell in table[2]]
    assert metrics["below_kmeans_pixels"] is True
    assert "is below k-means on pixels" in err
    assert sum(1 for path in (tmp_path / "run" / "clusters").rglob("*.png")) == 120
    code, *_ = fit(tmp_path / "other", labelled, "--set", "lr=1e-9")
    assert code == 0
    assert (tmp_path / "other" / "labels.csv").read_bytes() == (tmp_path / "run" / "labels.csv").read_bytes()


def test_files_left_out_are_listed(run):
    assert [row["path"] for row in rows(run / "run" / "skipped.csv")] == ["broken.png"]


def test_iic_is_dhog_without_a_push(tmp_path, capfd, config):
    words = ["fit", "iic", "--data", str(write_folder(tmp_path / "images", 60)), "--config", config]
    assert main([*words, "--out", str(tmp_path / "run"), "--epochs", "1"]) == 0
    assert Method.load(tmp_path / "run").alpha == 0
    capfd.readouterr()
    assert main([*words, "--out", str(tmp_path / "other"), "--alpha", "0.1"]) == 2
    assert "unrecognized arguments: --alpha" in capfd.readouterr().err
    # Without --config it starts from the configuration of its name.
    small = ["--set", "epochs=1", "width=0.25", "--clusters", "3", "--quiet"]
    assert main([*words[:4], "--out", str(tmp_path / "own"), *small]) == 0
    method = Method.load(tmp_path / "own")
    assert (method.n_sub_heads, method.over_mode, method.n_clusters) == (20, "alternate", 3)


def test_values_are_typed_alike_however_they_are_given(tmp_path, fit):
    data = write_folder(tmp_path / "images", 60)
    more = ("--set", "lr=1e-3", "over_clusters=9", "n-heads=null", "augmentation={name: digits, degrees: 5}")
    code, _, err = fit(
        tmp_path / "run", data, *more, "--batch_size", "30", "--epochs=1", "--clusters", "3", "--seed", "7"
    )
    assert code == 0, err
    parameters = Method.load(tmp_path / "run").get_params()
    expected = {
        "lr": 1e-3, "over_clusters": 9, "n_heads": None, "augmentation": {"name": "digits", "degrees": 5},
        "batch_size": 30, "epochs": 1, "n_clusters": 3, "seed": 7, "hidden": 16,
    }  # fmt: skip
    assert {key: parameters[key] for key in expected} == expected


def test_a_run_starts_from_another_runs_configuration(tmp_path, run):
    words = ["fit", "dhog", "--config", str(run / "run" / "config.yaml"), "--data", str(run / "images")]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "labels.csv").read_bytes() == (run / "run" / "labels.csv").read_bytes()


def test_seeds_are_summarised(tmp_path, fit):
    labelled = write_folder(tmp_path / "images", nested=True)
    code, out, err = fit(tmp_path / "runs", labelled, "--folder-labels", "--seeds", "0-1,5", "--epochs", "1")
    assert code == 0, err
    summary = json.loads((tmp_path / "runs" / "summary.json").read_text())
    singles = [json.loads((tmp_path / "runs" / f"seed-{seed}" / "metrics.json").read_text()) for seed in (0, 1, 5)]
    reached = [metrics["scores"]["nmi"] for metrics in singles]
    assert [row["seed"] for row in summary["seeds"]] == [0, 1, 5]
    assert [row["nmi"] for row in summary["seeds"]] == reached
    assert summary["mean"]["nmi"] == pytest.approx(np.mean(reached))
    assert summary["std"]["nmi"] == pytest.approx(np.std(reached, ddof=1))
    assert f"{np.mean(reached):.4f} +- {np.std(reached, ddof=1):.4f}" in out
    table = rows(tmp_path / "runs" / "summary.csv")
    assert [row["seed"] for row in table] == ["0", "1", "5", "mean", "std"]
    assert float(table[3]["ari"]) == pytest.approx(summary["mean"]["ari"], abs=1e-6)
    assert Method.load(tmp_path / "runs" / "seed-5").seed == 5
    # Nothing of it is written over unasked; resuming takes what is there.
    code, _, err = fit(tmp_path / "runs", labelled, "--seeds", "4-5", "--epochs", "1")
    assert (code, "already holds seed 5; add --resume auto" in err) == (2, True)
    assert not (tmp_path / "runs" / "seed-4").exists()


# Progress, and a second call


def test_a_log_shows_that_the_run_moves_and_a_second_call_its_table(tmp_path, fit, config, capfd):
    labelled = write_folder(tmp_path / "images", nested=True)
    more = ("--folder-labels", "--resume", "auto")
    code, out, err = fit(tmp_path / "run", labelled, *more)
    assert code == 0
    # Without a terminal a line at the end at least, and no bar.
    shown = r"loss -?\d+\.\d{4}, occupancy \d\.\d\d, ACC \d\.\d{3}, NMI \d\.\d{3}, \d+ s"
    assert re.search(rf"^epoch 8/8, 100 %, {shown}$", err, re.MULTILINE)
    assert "\r" not in out + err
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir() if path.name != ".lock"}
    code, again, err = fit(tmp_path / "run", labelled, *more)
    assert (code, again) == (0, out)
    assert "epoch" not in err
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert main(["evaluate", str(tmp_path / "run"), "--quiet"]) == 0
    evaluated = (tmp_path / "run" / "metrics.json").read_bytes()
    assert fit(tmp_path / "run", labelled, *more, "--quiet")[0] == 0
    assert (tmp_path / "run" / "metrics.json").read_bytes() == evaluated


def test_quiet_prints_nothing_and_a_bar_can_be_asked_for(tmp_path, fit, run):
    _, out, err = fit(tmp_path / "quiet", run / "images", "--epochs", "3", "--quiet")
    assert out == ""
    assert "epoch" not in err
    err = fit(tmp_path / "bar", run / "images", "--epochs", "3", "--progress")[2]
    assert "\repoch 3/3" in err


def test_lines_name_their_seed(tmp_path, fit, run):
    err = fit(tmp_path / "runs", run / "images", "--epochs", "1", "--seeds", "3-4")[2]
    for seed in (3, 4):
        assert re.search(rf"^seed {seed}: epoch 1/1, 100 %", err, re.MULTILINE)


# What is killed


def test_a_killed_run_resumes_to_the_same_labels(tmp_path, fit, config):
    images, kinds = pictures()
    np.savez(tmp_path / "images.npz", x=images, y=kinds)
    more = ("--set", "epochs=24", "checkpoint_every=3", "--resume", "auto")
    assert fit(tmp_path / "whole", tmp_path / "images.npz", *more)[0] == 0
    words = command(config, tmp_path / "images.npz", tmp_path / "killed")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    log = tmp_path / "killed" / "log.jsonl"
    with subprocess.Popen([sys.executable, "-m", "deepclust_ext", *words, *more], env=environment) as process:
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if log.exists() and log.read_text().count('"loss"') >= 5:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.002)
        assert process.wait(timeout=30) == -signal.SIGKILL
    assert not (tmp_path / "killed" / "labels.csv").exists()
    code, _, err = fit(tmp_path / "killed", tmp_path / "images.npz", *more)
    assert code == 0, err
    assert (tmp_path / "killed" / "labels.csv").read_bytes() == (tmp_path / "whole" / "labels.csv").read_bytes()
    assert '"resume"' in log.read_text()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_stopped_run_says_how_to_go_on(tmp_path, fit, run, monkeypatch, signum, code):
    from deepclust_ext.training import loop

    step = loop.train_step
    monkeypatch.setattr(loop, "train_step", lambda *a, **k: (os.kill(os.getpid(), signum), step(*a, **k))[1])
    found, _, err = fit(tmp_path / "run", run / "images")
    assert found == code
    assert err.splitlines()[-1] == (
        f"deepclust: stopped by {signal.Signals(signum).name}; the run was saved and can be resumed; "
        "run the same command with --resume auto"
    )
    monkeypatch.undo()
    assert fit(tmp_path / "run", run / "images", "--resume", "auto")[0] == 0
    assert (tmp_path / "run" / "labels.csv").read_bytes() == (run / "run" / "labels.csv").read_bytes()
