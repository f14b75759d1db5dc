"""Processes that stay, as the ranks of gloo groups of 1, 2 and 3: starting one costs as much as many tests."""

from __future__ import annotations

import importlib.util
import inspect
import multiprocessing
import pickle
import sys
import tempfile
import traceback
from datetime import timedelta
from pathlib import Path

import pytest

WORLDS = (1, 2, 3)
# What every process imports, and a fork has already: optimizers import torch._dynamo when the first one is made.
PRELOADED = ["torch", "torch._dynamo", "sklearn.metrics", "deepclust_ext.cli", "deepclust_ext.commands.fit"]
# Of one collective. A rank that waits longer for another gets an error from gloo.
PATIENCE = timedelta(seconds=60)


class Ranks:
    """`ranks(world, function, *args)` runs a function of a test file on ranks 0 .. world - 1 at once.

    The function is called as function(group, rank, *args) and its results come back in rank order; an error raises
    here, with the traceback of every rank. `errors` gives the errors themselves. A rank that does not answer in time is
    killed with the others, and the next call starts fresh ones.
    """

    def __init__(self):
        self.workers = []

    def __call__(self, world, function, *args, timeout=240):
        outcomes = self._outcomes(world, function, args, timeout)
        failed = [f"rank {rank}: {what[1]}" for rank, what in enumerate(outcomes) if isinstance(what, tuple)]
        if failed:
            self.stop()  # what they have sent may be waiting for others still
            raise AssertionError("\n".join(failed))
        return [pickle.loads(what) for what in outcomes]

    def errors(self, world, function, *args, timeout=240):
        """(type's name, message) of every rank; None where it did not fail."""
        outcomes = self._outcomes(world, function, args, timeout)
        return [what[0] if isinstance(what, tuple) else None for what in outcomes]

    def _outcomes(self, world, function, args, timeout):
        if not self.workers:
            self._start()
        job = pickle.dumps((world, inspect.getfile(function), function.__name__, args))
        for _, pipe in self.workers[:world]:
            pipe.send_bytes(job)
        outcomes = []
        for rank, (_, pipe) in enumerate(self.workers[:world]):
            if not pipe.poll(timeout):
                self.stop()
                raise AssertionError(f"rank {rank} of {world} does not end {function.__name__} within {timeout} s")
            outcomes.append(pickle.loads(pipe.recv_bytes()))
        return outcomes

    def _start(self):
        # Forks of a process that has torch loaded, and no thread of it yet.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self.folder = tempfile.TemporaryDirectory()
        meeting = str(Path(self.folder.name) / "meeting")
        for rank in range(max(WORLDS)):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, meeting, theirs, sys.path), daemon=True)
            process.start()
            theirs.close()
            self.workers.append((process, ours))

    def stop(self):
        for process, pipe in self.workers:
            pipe.close()
            process.kill()
            process.join()
        self.workers = []


def _serve(rank, meeting, pipe, path):
    sys.path[:] = path
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    size = max(WORLDS)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size, timeout=PATIENCE)
    groups = {world: dist.new_group(list(range(world)), timeout=PATIENCE) for world in WORLDS}
    modules = {}
    while True:
        try:
            world, file, name, args = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return
        try:
            if file not in modules:
                spec = importlib.util.spec_from_file_location(f"ranks_{Path(file).stem}", file)
                modules[file] = importlib.util.module_from_spec(spec)
                sys.modules[spec.name] = modules[file]
                spec.loader.exec_module(modules[file])
            outcome = pickle.dumps(getattr(modules[file], name)(groups[world], rank, *args))
        except Exception as error:
            outcome = ((type(error).__name__, str(error)), traceback.format_exc())
        pipe.send_bytes(pickle.dumps(outcome))


@pytest.fixture(scope="session")
def ranks():
    made = Ranks()
    yield made
    made.stop()


# How rows may lie on ranks: shares of them, a rank each.
CUTS = {
    "even": {1: [1.0], 2: [0.5, 0.5], 3: [1 / 3, 1 / 3, 1 / 3]},
    "uneven": {1: [1.0], 2: [0.1, 0.9], 3: [0.55, 0.05, 0.4]},
    "an empty first": {2: [0.0, 1.0], 3: [0.0, 0.3, 0.7]},
    "one has all": {2: [1.0, 0.0], 3: [0.0, 1.0, 0.0]},
}
LAYOUTS = [(world, cut) for cut, worlds in CUTS.items() for world in worlds]


def bounds(n, world, cut):
    """First and last row of every rank's shard of n rows."""
    ends, total = [], 0.0
    for share in CUTS[cut][world]:
        total += share
        ends.append(round(n * total))
    return list(zip([0, *ends[:-1]], ends, strict=True))
