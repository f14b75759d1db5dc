"""File systems that lack something, or space: what can go on goes on with a warning, and nothing is lost."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import stat
import warnings

import numpy as np
import pytest
import torch

from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.runs import CheckpointStore, NoSpaceError, RunDirectory, atomic, write_csv


def fail(code):
    raise OSError(code, os.strerror(code))


@pytest.fixture
def no_folder_sync(monkeypatch):
    """Flushing a folder fails, as on CIFS."""
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: fail(errno.EINVAL) if stat.S_ISDIR(os.fstat(fd).st_mode) else real(fd))
    monkeypatch.setattr(atomic, "_said", set())


@contextlib.contextmanager
def full_disk(size):
    """No file may grow beyond `size` bytes: stands for a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_a_run_goes_on_and_says_what_is_not_protected(tmp_path, monkeypatch, code):
    monkeypatch.setattr(fcntl, "flock", lambda *_: fail(code))
    with pytest.warns(DeepclustWarning, match="has no locks .* a second process"), RunDirectory(tmp_path) as run:
        run.write_config({"method": "DHOG"})
    assert run.holds_run


def test_another_failure_of_the_lock_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *_: fail(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        RunDirectory(tmp_path)


@pytest.mark.usefixtures("no_folder_sync")
def test_folders_that_cannot_be_flushed_are_named_once(tmp_path):
    with pytest.warns(DeepclustWarning, match="cannot flush folders .* after a power cut"):
        CheckpointStore(tmp_path).save({"epoch": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CheckpointStore(tmp_path).save({"epoch": 2})
    assert CheckpointStore(tmp_path).load() == {"epoch": 2}


def test_a_full_disk_is_a_sentence_and_the_old_checkpoint_stays(tmp_path):
    store = CheckpointStore(tmp_path)
    store.save({"epoch": 1})
    with (
        full_disk(100_000),
        pytest.raises(NoSpaceError, match=r"no space left to write '.*checkpoint\.pt\.new' \(File too large\)"),
    ):
        store.save({"weights": torch.zeros(100_000)})
    assert store.load() == {"epoch": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "checkpoint.pt.sha256"]


def test_a_full_disk_leaves_labels_embeddings_and_log_as_they_were(tmp_path):
    with RunDirectory(tmp_path) as run:
        run.write_labels(["a.png"], np.zeros(1, np.int64), np.ones(1))
        run.write_embeddings({"embeddings": np.zeros(1)})
        run.log("epoch", epoch=1)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
        names = [f"{number}.png" for number in range(10_000)]
        with full_disk(5000):
            for write in (
                lambda: run.write_labels(names, np.zeros(10_000, np.int64), np.ones(10_000)),
                lambda: run.write_embeddings({"embeddings": np.zeros(10_000)}),
                lambda: run.write_metrics({"counts": names}),
                lambda: run.log("epoch", names=names),
                lambda: write_csv(tmp_path / "skipped.csv", ("path", "reason"), [(name, "why") for name in names]),
            ):
                with pytest.raises(NoSpaceError, match=r"no space left to write '.*' \(File too large\); free some"):
                    write()
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
        assert [record["event"] for record in run.read_log()] == ["epoch"]
