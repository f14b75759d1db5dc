"""A run that is stopped at any moment and resumed ends as the one that never stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import torch
from support.clidata import quarters, single_thread
from support.kills import Killed, kill, stop_at

from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.evaluate import scores
from deepclust_ext.methods import DHOG
from deepclust_ext.runs import CheckpointError, ResumeMismatchError, RunDirectory, RunError, RunInUseError, save_state

SETTINGS = {
    "n_clusters": 4, "n_heads": 2, "network": "tiny8", "width": 0.25, "hidden": 16, "n_augmentations": 2,
    "augmentation": "digits", "batch_size": 40, "epochs": 8, "checkpoint_every": 3, "evaluate_every": 4,
    "warmup": 0.125, "device": "cpu",
}  # fmt: skip
RESULTS = ("labels.csv", "embeddings.npz")


def fit(run, data=None, **changes):
    """Fit without the noise of warnings about tiny runs."""
    options = {"resume": "auto", "progress": False}
    options |= {key: changes.pop(key) for key in ("resume", "y") if key in changes}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "DHOG: ", DeepclustWarning)
        return DHOG(**{**SETTINGS, **changes}).fit(quarters() if data is None else data, run=run, **options)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    with single_thread():
        yield


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The uninterrupted run."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    model = fit(folder)
    return folder, model


def assert_same(folder, reference):
    """Labels, embeddings and the log's losses equal the uninterrupted run's, and no epoch is there twice."""
    for name in RESULTS:
        assert (folder / name).read_bytes() == (reference / name).read_bytes()
    epochs, expected = epochs_of(folder), epochs_of(reference)
    assert [record["epoch"] for record in epochs] == list(range(1, SETTINGS["epochs"] + 1))
    for record, other in zip(epochs, expected, strict=True):
        for key in ("loss", "pull", "push", "nmi_views", "clusters_used", "lr", "churn"):
            assert record.get(key) == other.get(key)


def epochs_of(folder):
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["event"] == "epoch"]


@pytest.mark.parametrize(("epoch", "step"), [(0, 0), (0, 3), (2, 4), (3, 0), (7, 4)])
def test_a_killed_run_ends_the_same(tmp_path, reference, monkeypatch, epoch, step):
    stop_at(monkeypatch, epoch, step, kill)
    with pytest.raises(Killed):
        fit(tmp_path / "run")
    monkeypatch.undo()
    model = fit(tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", reference[0])
    assert [record["epoch"] for record in model.history_] == list(range(1, SETTINGS["epochs"] + 1))
    for name, value in reference[1].net_.state_dict().items():
        assert torch.equal(model.net_.state_dict()[name], value), name


@pytest.mark.parametrize("stage", ["agreement_of_views", "label_heads"])
def test_a_run_killed_in_its_last_seconds_ends_the_same(tmp_path, reference, monkeypatch, stage):
    monkeypatch.setattr(f"deepclust_ext.training.results.{stage}", lambda *_, **__: kill())
    with pytest.raises(Killed):
        fit(tmp_path / "run")
    monkeypatch.undo()
    fit(tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", reference[0])


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_in_the_middle_of_an_epoch(tmp_path, reference, monkeypatch, signum, code):
    stop_at(monkeypatch, 4, 2, lambda: os.kill(os.getpid(), signum))
    handler = signal.getsignal(signum)
    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path / "run")
    monkeypatch.undo()
    assert stopped.value.code == code
    assert signal.getsignal(signum) is handler
    state = RunDirectory(tmp_path / "run", mode="read").checkpoints.load()
    assert state["place"] == {"epoch": 4, "step": 3}
    fit(tmp_path / "run")
    assert_same(tmp_path / "run", reference[0])


def test_a_process_that_is_terminated_then_killed(tmp_path, reference):
    """Real signals to a real process: SIGTERM, resume, SIGKILL, resume."""
    run = tmp_path / "run"
    np.save(tmp_path / "images.npy", quarters().numpy())
    script = (
        "import sys, numpy, torch, time; torch.set_num_threads(1)\n"
        "from deepclust_ext.methods import DHOG\n"
        "from deepclust_ext.training import loop\n"
        "step = loop.train_step\n"
        # Slow enough for the signal to arrive before the run is over.
        "loop.train_step = lambda *a, **k: (time.sleep(0.02), step(*a, **k))[1]\n"
        f"DHOG(**{SETTINGS!r}).fit(numpy.load(sys.argv[1]), run=sys.argv[2], resume='auto')"
    )
    command = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "images.npy"), str(run)]
    for signum, after, code in ((signal.SIGTERM, 1, 143), (signal.SIGKILL, 5, -signal.SIGKILL)):
        with subprocess.Popen(command) as process:
            deadline = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < deadline:
                if (run / "log.jsonl").exists() and (run / "log.jsonl").read_text().count('"loss"') >= after:
                    process.send_signal(signum)
                    break
                time.sleep(0.01)
            assert process.wait(timeout=30) == code
    assert not (run / "labels.csv").exists()
    fit(run)
    assert_same(run, reference[0])


def damage(path):
    path.write_bytes(path.read_bytes()[:-50])


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, reference, monkeypatch):
    stop_at(monkeypatch, 6, 2, kill)
    with pytest.raises(Killed):
        fit(tmp_path / "run")
    monkeypatch.undo()
    damage(tmp_path / "run" / "checkpoint.pt")
    with pytest.warns(DeepclustWarning, match=r"checkpoint\.pt' is truncated or altered.*using checkpoint\.previous"):
        DHOG(**SETTINGS).fit(quarters(), run=tmp_path / "run", resume=True, progress=False)
    assert_same(tmp_path / "run", reference[0])


@pytest.mark.parametrize("loss", [damage, lambda path: path.unlink()])
def test_a_run_without_checkpoints_is_never_restarted_silently(tmp_path, monkeypatch, loss):
    stop_at(monkeypatch, 4, 0, kill)
    with pytest.raises(Killed):
        fit(tmp_path / "run")
    monkeypatch.undo()
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        loss(tmp_path / "run" / name)
    with pytest.raises(CheckpointError, match="start again in a new folder"):
        fit(tmp_path / "run")


def test_a_finished_run_is_loaded_and_nothing_is_done_again(tmp_path, reference, monkeypatch):
    shutil.copytree(reference[0], tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    monkeypatch.setattr("deepclust_ext.training.results.label_heads", lambda *_, **__: kill())
    again = fit(tmp_path / "run")
    monkeypatch.undo()
    for name in ("labels_", "confidence_", "nmi_views_"):
        assert np.array_equal(getattr(again, name), getattr(reference[1], name))
    assert again.metrics_ == reference[1].metrics_
    assert again.history_ == reference[1].history_
    assert np.array_equal(again.predict(quarters()), again.labels_)
    after = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} <= {".lock"}


def test_results_that_are_gone_or_lack_scores_are_made_again(tmp_path, reference):
    shutil.copytree(reference[0], tmp_path / "run")
    (tmp_path / "run" / "labels.csv").unlink()
    fit(tmp_path / "run")
    assert_same(tmp_path / "run", reference[0])
    for classes in (np.arange(200) % 4, np.arange(200) % 3):
        scored = fit(tmp_path / "run", y=classes)
        assert scored.metrics_["scores"] == scores(scored.labels_, classes)
        assert RunDirectory(tmp_path / "run", mode="read").read_metrics()["scores"] == scored.metrics_["scores"]
    assert_same(tmp_path / "run", reference[0])


def test_a_finished_run_is_not_written_over(reference):
    with pytest.raises(RunError, match="already holds a run"):
        fit(reference[0], resume=False)


def test_other_settings_and_data_are_refused_by_name(reference):
    for changes, message in (
        ({"lr": 0.5, "alpha": 0.1}, r"alpha was 0\.05 and is now 0\.1; lr was 0\.001 and is now 0\.5"),
        ({"seed": 1}, "seed was 0 and is now 1"),
        ({"epochs": 9}, "epochs was 8 and is now 9"),
        ({"data": quarters() + 1}, "the data's digest was"),
        ({"data": quarters(100)}, "the data's n_images was 200 and is now 100"),
    ):
        with pytest.raises(ResumeMismatchError, match=message):
            fit(reference[0], **changes)


def test_what_changes_no_label_may_change(tmp_path, reference, monkeypatch):
    stop_at(monkeypatch, 4, 0, kill)
    with pytest.raises(Killed):
        fit(tmp_path / "run")
    monkeypatch.undo()
    fit(tmp_path / "run", checkpoint_every=1)
    assert_same(tmp_path / "run", reference[0])


def test_another_number_of_threads_is_reported_while_there_is_training_to_do(tmp_path, reference, monkeypatch, threads):
    stop_at(monkeypatch, 4, 0, kill)
    with pytest.raises(Killed):
        fit(tmp_path / "run")
    monkeypatch.undo()
    threads(2)
    with pytest.warns(DeepclustWarning, match=r"was started with threads 1 and goes on with 2: its labels may differ"):
        fit(tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(reference[0])


def test_a_folder_in_use_is_refused(tmp_path):
    with RunDirectory(tmp_path / "run"), pytest.raises(RunInUseError, match="is in use by process"):
        fit(tmp_path / "run")


def test_resume_needs_a_run(tmp_path):
    with pytest.raises(ValueError, match=r"DHOG\.fit: 'resume' needs 'run'"):
        fit(None)
    with pytest.raises(RunError, match="holds no run"):
        fit(tmp_path / "absent", resume=True)
    with pytest.raises(ValueError, match=r"DHOG\.fit: 'resume' must be False, True or 'auto', got 'yes'"):
        fit(tmp_path / "run", resume="yes")


def test_the_folder_holds_what_readers_expect(reference):
    folder, model = reference
    run = RunDirectory(folder, mode="read")
    config = run.read_config()
    assert config["method"] == "DHOG"
    assert config["parameters"] == model.get_params()
    assert config["data"]["n_images"] == 200
    assert len(config["data"]["digest"]) == 64
    assert config["versions"]["torch"] == torch.__version__
    assert {"selected_head", "heads", "diagnostics", "seconds"} <= run.read_metrics().keys()
    with np.load(folder / "embeddings.npz") as arrays:
        assert len(arrays["embeddings"]) == 200
    assert np.array_equal(DHOG.load(folder).predict(quarters()), model.labels_)
    assert not [entry for entry in folder.iterdir() if entry.name.endswith((".tmp", ".new"))]


def test_files_of_another_format_are_refused_by_both_numbers(tmp_path, reference):
    run = tmp_path / "run"
    shutil.copytree(reference[0], run)
    state = RunDirectory(run, mode="read").checkpoints.load()
    save_state({**state, "format": 1}, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"model.pt' has format 1, and this version reads format 2; use .*0\.1"):
        DHOG.load(tmp_path / "model.pt")
    config = (run / "config.yaml").read_text()
    assert config.startswith("format: 2\n")
    (run / "config.yaml").write_text(config.replace("format: 2", "format: 1", 1))
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(ResumeMismatchError, match="the file format was 1 and is now 2"):
        fit(run)
    assert {path.name: path.read_bytes() for path in run.iterdir()} | {".lock": b""} == before | {".lock": b""}
