"""What is timed and counted on the ranks: ops on a fixed whole, cut by rank, and the first steps of each method."""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.scale.traffic import counted
from deepclust_ext import bank_nll_entropy, kmeans, knn, methods, mi_loss
from deepclust_ext.training import joined, loop

TURNS = 5
STEPS, STEP = 3, 256
# Sizes of the whole.
POINTS, DIM, CLUSTERS = 60_000, 128, 100
GRAPH, NEIGHBORS = 12_000, 20
BANK, BATCH, SAMPLES, CLASSES = 100_000, 256, 65_536, 100
# The name of each as a command, and its configuration; None for the defaults.
METHODS = {
    "DHOG": ("dhog", "small"), "DeepCluster": ("deepcluster", "small"), "SuperAND": ("super-and", "small"),
    "JULE": ("jule", None), "VCAMI": ("vcami", "small"),
}  # fmt: skip


def part(rank: int, world: int, n: int, dim: int) -> Tensor:
    """The rows that a rank has of n normal ones."""
    whole = torch.randn(n, dim, generator=torch.Generator().manual_seed(0))
    return whole[n * rank // world : n * (rank + 1) // world].clone()


def ops(group: Any, rank: int, world: int) -> dict[str, tuple[float, int, float]]:
    """By op: seconds (the median), calls and bytes received; the same whole on any number of ranks."""
    x, few, rows = part(rank, world, POINTS, DIM), part(rank, world, GRAPH, DIM), part(rank, world, BANK, DIM)
    start = torch.randn(CLUSTERS, DIM, generator=torch.Generator().manual_seed(1))
    bank, v = normalize(rows), normalize(part(rank, world, BATCH, DIM)).requires_grad_()
    index = torch.arange(BATCH * rank // world, BATCH * (rank + 1) // world)
    p = torch.softmax(part(rank, world, SAMPLES, CLASSES), -1).requires_grad_()

    def bank_step() -> None:
        nll, entropy = bank_nll_entropy(v, bank, index, index[:, None], group=group)
        (nll.sum() + entropy.sum()).backward()

    calls: dict[str, Callable[[], Any]] = {
        "kmeans": lambda: kmeans(x, CLUSTERS, init=start, max_iter=10, tol=0.0, group=group),
        "knn": lambda: knn(few, NEIGHBORS, group=group),
        "bank_nll_entropy": bank_step,
        "mi_loss": lambda: mi_loss(p, p, group=group).backward(),
    }
    found = {}
    for name, call in calls.items():
        call()
        seconds = []
        with counted() as seen:
            for _ in range(TURNS):
                begin = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - begin)
        found[name] = (statistics.median(seconds), seen.calls // TURNS, seen.received / TURNS)
    return found


class _EnoughError(Exception):
    """The steps that are counted are over."""


def steps(group: Any, _rank: int, _world: int) -> dict[str, tuple[float, int, float, int]]:
    """By method, of its step on digits: seconds (the median), calls, bytes received, and bytes of its weights."""
    found = {}
    real = loop.train_step
    for name, (command, config) in METHODS.items():
        seen: list[tuple[float, int, float, int]] = []

        def step(learner: Any, *arguments: Any, seen: list[Any] = seen, **options: Any) -> Any:
            if len(seen) > STEPS:
                raise _EnoughError
            begin = time.perf_counter()
            with counted() as traffic:
                done = real(learner, *arguments, **options)
            weights = sum(each.numel() for group in learner.optimizer.param_groups for each in group["params"])
            seen.append((time.perf_counter() - begin, traffic.calls, traffic.received, 4 * weights))
            return done

        loop.train_step = step
        try:
            with warnings.catch_warnings(), joined(group):
                warnings.simplefilter("ignore")
                settings = {} if config is None else methods.load_config(command, config)
                model = getattr(methods, name)(**settings | {"n_clusters": 10, "batch_size": STEP, "device": "cpu"})
                model.fit("mnist5k", progress=False)
        except _EnoughError:
            pass
        finally:
            loop.train_step = real
        seconds = statistics.median(each[0] for each in seen[1:])
        found[name] = (seconds, *seen[-1][1:])
    return found
