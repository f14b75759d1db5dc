"""Checkpoints: a file is whole or it is noticed, and the one before is always there."""

from __future__ import annotations

import os

import pytest
import torch

from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.runs import CheckpointError, CheckpointStore, atomic_writer, load_state, save_state
from deepclust_ext.runs import checkpoint as module


@pytest.fixture
def store(tmp_path):
    store = CheckpointStore(tmp_path)
    for epoch in (1, 2, 3):
        store.save({"epoch": epoch, "weights": torch.full((50,), float(epoch))})
    return store


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def alter(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_newest_is_loaded_and_two_are_kept(store):
    assert store.load()["epoch"] == 3
    assert load_state(store.previous)["epoch"] == 2
    assert sorted(entry.name for entry in store.folder.iterdir()) == [
        "checkpoint.previous.pt",
        "checkpoint.previous.pt.sha256",
        "checkpoint.pt",
        "checkpoint.pt.sha256",
    ]


def test_an_empty_folder_has_none(tmp_path):
    assert CheckpointStore(tmp_path).load() is None


@pytest.mark.parametrize("damage", [truncate, alter, lambda path: path.unlink()])
def test_a_damaged_file_is_named_and_the_one_before_is_used(store, damage):
    damage(store.current)
    with pytest.warns(DeepclustWarning, match=r"checkpoint\.pt'.*using checkpoint\.previous\.pt instead"):
        assert store.load()["epoch"] == 2


@pytest.mark.parametrize("damage", [truncate, alter])
def test_two_damaged_files_are_an_error(store, damage):
    damage(store.current)
    damage(store.previous)
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt'.*checkpoint\.previous\.pt'.*start again"):
        store.load()


def test_altered_tensor_data_is_noticed(store):
    # The bytes of the weights, not of the archive's structure: only the digest can tell.
    content = store.current.read_bytes()
    position = content.index(torch.full((50,), 3.0).numpy().tobytes())
    store.current.write_bytes(content[:position] + b"\x01" + content[position + 1 :])
    assert torch.load(store.current, weights_only=True)["epoch"] == 3
    with pytest.warns(DeepclustWarning, match="truncated or altered"):
        assert store.load()["epoch"] == 2


def test_a_kill_at_any_write_leaves_a_whole_checkpoint(store, monkeypatch):
    """Stop the save before each of its renames in turn: nothing is lost, nothing reported as damaged."""
    replace = os.replace
    done = False
    stops = 0
    while not done:
        left = stops

        def failing(source, target):
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            replace(source, target)

        monkeypatch.setattr(os, "replace", failing)
        before = store.load()["epoch"]
        try:
            store.save({"epoch": before + 1, "weights": torch.zeros(50)})
            done = True
        except KeyboardInterrupt:
            stops += 1
        monkeypatch.setattr(os, "replace", replace)
        # pytest turns no warning into an error by itself, so ask for the reading without any.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module.warnings, "warn", lambda *_, **__: pytest.fail("a whole checkpoint was reported"))
            assert store.load()["epoch"] in (before, before + 1)
            assert load_state(store.previous)["epoch"] >= before - 1
    assert stops == 7


def test_a_failed_save_raises_and_keeps_the_old(store):
    with pytest.raises((AttributeError, TypeError, RuntimeError)):
        store.save({"epoch": 4, "bad": lambda: None})
    assert store.load()["epoch"] == 3


def test_a_full_disk_raises(store, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.save({"epoch": 4})
    monkeypatch.undo()
    assert store.load()["epoch"] == 3


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    store = CheckpointStore(tmp_path)
    save_state({"epoch": Trap()}, store.current)
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        store.load()
    assert not (tmp_path / "trapped").exists()


def test_a_file_without_its_digest_is_read_with_a_warning(tmp_path):
    save_state({"epoch": 7}, tmp_path / "model.pt")
    (tmp_path / "model.pt.sha256").unlink()
    with pytest.warns(DeepclustWarning, match="read unverified"):
        assert load_state(tmp_path / "model.pt") == {"epoch": 7}
    with pytest.raises(CheckpointError, match=r"there is no file '.*absent\.pt'"):
        load_state(tmp_path / "absent.pt")


def test_the_digest_file_is_what_sha256sum_reads(store):
    digest, name = store.current.with_name("checkpoint.pt.sha256").read_text().split()
    assert name == "checkpoint.pt"
    assert digest == module.file_digest(store.current)


def test_a_writer_that_fails_leaves_the_old_content(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")

    def half_written():
        with atomic_writer(target) as file:
            file.write(b"ne")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        half_written()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
