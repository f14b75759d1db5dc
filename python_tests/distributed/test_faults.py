"""`torchrun -m deepclust_ext fit`: one run folder, and what happens when a rank is killed or its disk is full."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import faults
from support.clidata import pictures
from support.tinyruns import tiny


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The data, and the labels of one process."""
    folder = tmp_path_factory.mktemp("faults")
    images, _ = pictures(120, 0, 8)
    np.save(folder / "images.npy", images[:, None] if images.ndim == 3 else images)
    codes, messages, _ = faults.ranks_of_a_run(words(folder, "alone"), 1, {})
    assert codes == [0], messages
    return folder


def words(folder, run):
    """A small run of three epochs of three steps each, with a checkpoint after every epoch."""
    options = ["--resume", "auto", "--checkpoint-every", "1", "--epochs", "3", "--lr", "0.05", "--quiet"]
    return tiny("deepcluster", folder / "images.npy", folder / run, *options)


def fault(kind, rank, step):
    return {"FAULT": kind, "FAULT_RANK": str(rank), "FAULT_STEP": str(step)}


def labels(folder, run):
    """Clusters numbered as they first come."""
    with np.load(folder / run / "embeddings.npz") as arrays:
        _, first, inverse = np.unique(arrays["labels"], return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def test_a_killed_rank_ends_the_others_and_a_resume_comes_to_the_same_labels(made):
    for world, killed, step in ((2, 1, 4), (3, 0, 7)):
        found = faults.ranks_of_a_run(words(made, "killed"), world, fault("kill", killed, step))
        codes, messages, seconds = found
        others = [rank for rank in range(world) if rank != killed]
        assert codes[killed] == -signal.SIGKILL
        assert [codes[rank] for rank in others] == [75] * len(others), messages
        assert seconds < 60
        for rank in others:
            who = f"rank {rank}: " if rank else ""
            sentence = "another process of the run has ended, and this one ends with it; start all again with"
            assert messages[rank].strip() == f"deepclust: {who}{sentence} --resume auto"
        assert not (made / "killed" / "labels.csv").exists()
    codes, messages, _ = faults.ranks_of_a_run(words(made, "killed"), 2, {})
    assert codes == [0, 0], messages
    np.testing.assert_array_equal(labels(made, "killed"), labels(made, "alone"))


def test_torchrun_starts_a_run_again_that_has_lost_a_rank(made):
    script = [str(Path(faults.__file__)), *words(made, "again")]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(faults.__file__).parents[1])}
    environment |= fault("kill", 0, 4)
    # Each start ends within the limit.
    limit = 3 * faults.LIMIT
    done = subprocess.run([*command, *script], env=environment, capture_output=True, check=False, timeout=limit)
    assert done.returncode == 0, done.stderr.decode()
    assert b"deepclust: rank 1: another process of the run has ended" in done.stderr
    np.testing.assert_array_equal(labels(made, "again"), labels(made, "alone"))


def test_a_full_disk_on_rank_0_stops_all(made):
    codes, messages, seconds = faults.ranks_of_a_run(words(made, "full"), 2, fault("full", 0, 3))
    assert codes == [2, 75]
    assert seconds < 60
    assert "no space left to write" in messages[0]
    assert len(messages[0].strip().splitlines()) == 1
    assert messages[1].startswith("deepclust: rank 1: ")
    codes, messages, _ = faults.ranks_of_a_run(words(made, "full"), 2, {})
    assert codes == [0, 0], messages
    np.testing.assert_array_equal(labels(made, "full"), labels(made, "alone"))
    # The second has said nothing, and has written nothing of its own.
    assert messages[1] == ""
