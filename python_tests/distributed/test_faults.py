"""`torchrun -m deepclust_ext fit`: one run folder, and what happens when a rank is killed or its disk is full."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from support.clidata import pictures
from support.tinyruns import tiny

# Seconds after which a process prints where it is and ends, and those after which the test ends all.
LIMIT, PATIENCE = 100, 240
# As `python -m deepclust_ext`, but for a fault. Rank, step and kind come from the environment.
SCRIPT = f"""
import faulthandler, os, resource, signal, sys
faulthandler.dump_traceback_later({LIMIT}, exit=True)
import torch
from deepclust_ext.cli import main
from deepclust_ext.training import loop

torch.set_num_threads(1)
rank, kind, at = os.environ["RANK"], os.environ.get("FAULT", ""), int(os.environ.get("FAULT_STEP", "0"))
real = loop.train_step

def step(learner, index, place, **options):
    if place.number == at and rank == os.environ["FAULT_RANK"] and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        if kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    return real(learner, index, place, **options)

if kind:
    loop.train_step = step
sys.exit(main())
"""  # noqa: E501


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The data and the script, and the labels of one process."""
    folder = tmp_path_factory.mktemp("faults")
    images, _ = pictures(120, 0, 8)
    np.save(folder / "images.npy", images[:, None] if images.ndim == 3 else images)
    (folder / "script.py").write_text(SCRIPT)
    assert subprocess.run([sys.executable, *words(folder, "alone")], env=environment(), check=False).returncode == 0
    return folder


def words(folder, run):
    """A small run of three epochs of three steps each, with a checkpoint after every epoch."""
    options = ["--resume", "auto", "--checkpoint-every", "1", "--epochs", "3", "--lr", "0.05", "--quiet"]
    return [str(folder / "script.py"), *tiny("deepcluster", folder / "images.npy", folder / run, *options)]


def environment(**more):
    return {**os.environ, "OMP_NUM_THREADS": "1", "RANK": "0", "FAULT_RANK": "none", **more}


def by_hand(folder, run, world, **more):
    """Start every rank as torchrun does, without torchrun, which would end the others itself.

    Returns
    -------
    codes, messages, seconds
        Of every rank.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    command = [sys.executable, "-W", "ignore", *words(folder, run)]
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]
    started = [
        subprocess.Popen(command, stderr=subprocess.PIPE, env={**environment(**meeting, **more), **rank})
        for rank in ranks
    ]
    ends, begin = {}, time.monotonic()
    while len(ends) < world:
        for rank, process in enumerate(started):
            if rank not in ends and process.poll() is not None:
                ends[rank] = time.monotonic()
            if time.monotonic() - begin > PATIENCE:
                process.kill()
        time.sleep(0.05)
    messages = [process.communicate()[1].decode() for process in started]
    return [process.returncode for process in started], messages, max(ends.values()) - min(ends.values())


def labels(folder, run):
    """Clusters numbered as they first come."""
    with np.load(folder / run / "embeddings.npz") as arrays:
        _, first, inverse = np.unique(arrays["labels"], return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def torchrun(folder, run, world, *options, **more):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}", *options]
    command += words(folder, run)
    return subprocess.run(command, env=environment(**more), capture_output=True, check=False, timeout=PATIENCE)


def test_a_killed_rank_ends_the_others_and_a_restart_comes_to_the_same_labels(made):
    codes, messages, seconds = by_hand(made, "killed", 2, FAULT="kill", FAULT_RANK="1", FAULT_STEP="4")
    assert codes == [75, -signal.SIGKILL]
    assert seconds < 60
    sentence = "another process of the run has ended, and this one ends with it; start all again with --resume auto"
    assert messages[0].strip() == f"deepclust: {sentence}"
    assert not (made / "killed" / "labels.csv").exists()
    # On three ranks, one of which is killed; torchrun starts them again.
    done = torchrun(made, "killed", 3, "--max-restarts=1", FAULT="kill", FAULT_RANK="0", FAULT_STEP="7")
    assert done.returncode == 0, done.stderr.decode()
    assert b"rank 1: " in done.stderr
    np.testing.assert_array_equal(labels(made, "killed"), labels(made, "alone"))


def test_a_full_disk_on_rank_0_stops_all(made):
    codes, messages, seconds = by_hand(made, "full", 2, FAULT="full", FAULT_RANK="0", FAULT_STEP="3")
    assert codes == [2, 75]
    assert seconds < 60
    assert "no space left to write" in messages[0]
    assert len(messages[0].strip().splitlines()) == 1
    assert messages[1].startswith("deepclust: rank 1: ")
    codes, messages, _ = by_hand(made, "full", 2)
    assert codes == [0, 0], messages
    np.testing.assert_array_equal(labels(made, "full"), labels(made, "alone"))
    # The second has said nothing, and has written nothing of its own.
    assert messages[1] == ""
