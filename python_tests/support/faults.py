"""`python -m deepclust_ext` on a rank that may be killed, or whose disk fills up; also as a script for torchrun."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import resource
import signal
import socket
import sys
import tempfile
import time
import warnings
from pathlib import Path

from support.ranks import PRELOADED

# Seconds after which a process prints where it is and ends.
LIMIT = 100


def run(words):
    """The command, with the fault that FAULT names, on rank FAULT_RANK before step FAULT_STEP; returns its exit code.

    FAULT is "kill" or "full", and happens once: not in processes that torchrun has started anew.
    """
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    warnings.simplefilter("ignore")
    import torch

    from deepclust_ext.cli import main
    from deepclust_ext.training import loop

    torch.set_num_threads(1)
    rank, kind, at = os.environ["RANK"], os.environ.get("FAULT", ""), int(os.environ.get("FAULT_STEP", "0"))
    real = loop.train_step

    def step(learner, index, place, **options):
        if place.number == at and rank == os.environ["FAULT_RANK"]:
            if kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        return real(learner, index, place, **options)

    if kind and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        loop.train_step = step
    return main(words)


def ranks_of_a_run(words, world, fault):
    """Run the command on every rank as torchrun starts it, but without torchrun, which would end the others itself.

    Parameters
    ----------
    words : list of str
    world : int
    fault : dict
        FAULT, FAULT_RANK and FAULT_STEP, or nothing.

    Returns
    -------
    codes, messages, seconds
        The exit code and stderr of every rank, and the time between the first end and the last.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world), **fault}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / str(rank) for rank in range(world)]
        own = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]
        processes = [
            context.Process(target=_forked, args=(words, environment, str(file)), daemon=True)
            for environment, file in zip(own, files, strict=True)
        ]
        for process in processes:
            process.start()
        ends = {}
        while len(ends) < world:
            ends |= {r: time.monotonic() for r, each in enumerate(processes) if r not in ends and not each.is_alive()}
            time.sleep(0.05)
        return [p.exitcode for p in processes], [f.read_text() for f in files], max(ends.values()) - min(ends.values())


def _forked(words, environment, file):
    os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), 2)
    os.environ.update(environment)
    sys.exit(run(words))


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
