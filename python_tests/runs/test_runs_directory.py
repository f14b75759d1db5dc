"""The run folder: who may write in it, and what a reader finds."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.runs import (
    ResumeMismatchError,
    RunDirectory,
    RunError,
    RunInUseError,
    compare_configs,
    describe,
)
from deepclust_ext.runs.config import make_config, warn_of_changes


def config(**changes):
    settings = {
        "method": "DHOG",
        "parameters": {"lr": 0.1, "device": "cpu"},
        "seed": 0,
        "result_neutral": ("device",),
    }
    settings["data"] = {"source": "array", "digest": "ab", "n_images": 4, "image_shape": (1, 8, 8)}
    return make_config(**{**settings, **changes})


def test_a_folder_in_use_is_refused_and_named(tmp_path):
    with RunDirectory(tmp_path / "run") as run:
        run.write_config({"method": "DHOG"})
        with pytest.raises(RunInUseError, match=r"'.*run' is in use by process \d+; wait for it to end"):
            RunDirectory(tmp_path / "run", mode="auto")
    RunDirectory(tmp_path / "run", mode="auto").close()


def test_the_lock_of_a_killed_process_is_free_again(tmp_path):
    code = (
        "import sys, time\n"
        "from deepclust_ext.runs.directory import RunDirectory\n"
        "run = RunDirectory(sys.argv[1]); run.write_config({'method': 'DHOG'})\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(RunInUseError, match=f"in use by process {process.pid}"):
            RunDirectory(tmp_path / "run", mode="resume")
        process.kill()
    RunDirectory(tmp_path / "run", mode="resume").close()


def test_a_run_is_never_written_over(tmp_path):
    with RunDirectory(tmp_path) as run:
        run.write_config({"method": "DHOG"})
        run.checkpoints.save({"epoch": 0})
    with pytest.raises(RunError, match="already holds a run; resume it, or choose another folder"):
        RunDirectory(tmp_path)
    # A refused attempt must not keep the lock.
    RunDirectory(tmp_path, mode="resume").close()


def test_a_run_that_has_lost_its_checkpoints_is_not_written_over(tmp_path):
    with RunDirectory(tmp_path) as run:
        run.write_config({"method": "DHOG"})
        run.log("epoch", epoch=1)
    with pytest.raises(RunError, match="already holds a run"):
        RunDirectory(tmp_path)


def test_a_start_that_failed_does_not_stop_the_next(tmp_path):
    with RunDirectory(tmp_path) as run:
        run.write_config({"method": "DHOG"})
        run.log("start")
    # As a kill in the midst of writing leaves them.
    for name in (".checkpoint.pt.new.tmp", "checkpoint.pt.new", ".log.jsonl.tmp"):
        (tmp_path / name).write_bytes(b"cut")
    with RunDirectory(tmp_path) as run:
        assert not run.holds_run
        assert run.read_log() == []


def test_a_configuration_in_a_folder_that_is_not_ours_is_kept(tmp_path):
    (tmp_path / "config.yaml").write_text("mine: true")
    with pytest.raises(RunError, match="already holds a run"):
        RunDirectory(tmp_path)
    assert (tmp_path / "config.yaml").read_text() == "mine: true"


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    for mode in ("create", "auto"):
        with pytest.raises(RunError, match="is not empty and holds no run"):
            RunDirectory(tmp_path, mode=mode)
    with pytest.raises(RunError, match="is a file; give the name of a folder"):
        RunDirectory(tmp_path / "thesis.tex")


@pytest.mark.parametrize("mode", ["resume", "read"])
def test_nothing_to_resume_or_read(tmp_path, mode):
    with pytest.raises(RunError, match="holds no run"):
        RunDirectory(tmp_path / "absent", mode=mode)
    assert not (tmp_path / "absent").exists()


def test_reading_needs_no_lock_and_writes_nothing(tmp_path):
    with RunDirectory(tmp_path) as run:
        run.write_config({"method": "DHOG"})
        reader = RunDirectory(tmp_path, mode="read")
        assert reader.read_config() == {"method": "DHOG"}
        with pytest.raises(RunError, match="is not open for writing"):
            reader.write_metrics({})


def test_an_unknown_mode_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"RunDirectory: 'mode' must be .* got 'w'"):
        RunDirectory(tmp_path, mode="w")


def test_labels_come_back_whatever_the_file_is_called(tmp_path):
    names = ["a,b.png", 'quo"te.png', "new\nline.png", "bad\udcff.png", "näme.png"]
    with RunDirectory(tmp_path) as run:
        run.write_labels(names, np.arange(5), np.linspace(0, 1, 5))
    with (tmp_path / "labels.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "cluster", "confidence"]
    assert [row[0] for row in rows[1:]] == names
    assert [row[1] for row in rows[1:]] == list("01234")
    assert rows[2][2] == "0.250000"


def test_metrics_are_strict_json(tmp_path):
    with RunDirectory(tmp_path) as run:
        run.write_metrics({"nmi": float("nan"), "counts": np.arange(3), "loss": torch.tensor(1.5)})
        assert run.read_metrics() == {"nmi": None, "counts": [0, 1, 2], "loss": 1.5}
    assert "NaN" not in (tmp_path / "metrics.json").read_text()


@pytest.mark.parametrize(("content", "message"), [("{", "is no JSON"), ("[1]", r"must hold a mapping, got \[1\]")])
def test_damaged_metrics_are_named(tmp_path, content, message):
    with RunDirectory(tmp_path) as run:
        (tmp_path / "metrics.json").write_text(content)
        with pytest.raises(RunError, match=rf"metrics\.json' {message}.*; delete it"):
            run.read_metrics()


def test_a_damaged_configuration_is_named(tmp_path):
    with RunDirectory(tmp_path) as run:
        for content in (b"lr: [1", b"lr: \xff"):
            (tmp_path / "config.yaml").write_bytes(content)
            with pytest.raises(RunError, match=r"config\.yaml in .* cannot be read"):
                run.read_config()


def test_a_block_gives_the_folders_own_class(tmp_path):
    class Own(RunDirectory):
        pass

    with Own(tmp_path) as run:
        assert type(run) is Own


def test_embeddings(tmp_path):
    with RunDirectory(tmp_path) as run:
        run.write_embeddings({"embeddings": np.ones((3, 2), np.float32), "labels": np.arange(3)})
    with np.load(tmp_path / "embeddings.npz", allow_pickle=False) as arrays:
        assert arrays["embeddings"].shape == (3, 2)
        assert arrays["labels"].tolist() == [0, 1, 2]


def test_rewinding_the_log_drops_what_will_be_done_again(tmp_path):
    with RunDirectory(tmp_path) as run:
        run.log("start")
        for epoch in (1, 2, 3):
            run.log("epoch", epoch=epoch)
        with (tmp_path / "log.jsonl").open("a") as file:
            file.write('{"event": "epoch", "epo')
        assert [record.get("epoch") for record in run.rewind_log(2)] == [None, 1, 2]
        run.log("epoch", epoch=3)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line).get("epoch") for line in lines] == [None, 1, 2, 3]


def test_a_damaged_line_inside_the_log_is_reported(tmp_path):
    with RunDirectory(tmp_path) as run:
        (tmp_path / "log.jsonl").write_text('{"epoch": 1}\nrubbish\n3\n{"epoch": 2}\n')
        with pytest.warns(DeepclustWarning) as caught:
            assert run.read_log() == [{"epoch": 1}, {"epoch": 2}]
    assert ["line 2 of" in str(caught[0].message), "line 3 of" in str(caught[1].message)] == [True, True]


def test_the_same_run_compares_equal_after_yaml(tmp_path):
    with RunDirectory(tmp_path) as run:
        run.write_config(config())
        compare_configs(run.read_config(), config(), where="run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "JULE"}, "the method was 'DHOG' and is now 'JULE'"),
        ({"parameters": {"lr": 0.2, "device": "cpu"}}, "lr was 0.1 and is now 0.2"),
        ({"parameters": {"lr": 0.1, "device": "cpu", "width": 2}}, "width was None and is now 2"),
        (
            {"data": {"digest": "cd", "n_images": 4, "image_shape": (1, 8, 8)}},
            "the data's digest was 'ab' and is now",
        ),
    ],
)
def test_another_run_is_named(changes, message):
    with pytest.raises(ResumeMismatchError, match=message):
        compare_configs(config(), config(**changes), where="run")


def test_what_changes_no_label_may_change():
    compare_configs(config(), config(parameters={"lr": 0.1, "device": "cuda"}), where="run")


def test_versions_are_compared():
    saved = config()
    saved["versions"] = {**saved["versions"], "deepclust_ext": "99.1.0"}
    with pytest.raises(ResumeMismatchError, match=r"deepclust_ext's version was '99\.1'"):
        compare_configs(saved, config(), where="run")
    saved["format"] = 0
    with pytest.raises(ResumeMismatchError, match="the file format was 0"):
        compare_configs(saved, config(), where="run")


def test_what_may_change_bits_is_reported(recwarn):
    saved = config()
    warn_of_changes(saved, config(), where="run")
    assert not recwarn.list
    saved["versions"] = {**saved["versions"], "torch": "1.0"}
    saved["threads"] = 99
    compare_configs(saved, config(), where="run")
    with pytest.warns(DeepclustWarning, match=r"'run' was started with torch 1\.0 and goes on .*, with threads 99 and"):
        warn_of_changes(saved, config(), where="run")


def test_another_processor_is_reported_where_it_is_known(recwarn):
    saved = config()
    del saved["processor"]
    warn_of_changes(saved, config(), where="run")
    assert not recwarn.list
    with pytest.warns(DeepclustWarning, match=r"with processor abacus, AVX2 and goes on with "):
        warn_of_changes({**saved, "processor": "abacus, AVX2"}, config(), where="run")


def test_objects_are_described_by_structure():
    narrow, wide = (describe(torch.nn.Linear(2, width)) for width in (3, 4))
    assert narrow["object"] == wide["object"] == "torch.nn.modules.linear.Linear"
    assert narrow["structure"] != wide["structure"]
    assert describe(test_embeddings)["object"].endswith("test_embeddings")
