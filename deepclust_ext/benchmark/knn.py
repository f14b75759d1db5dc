"""knn against torch and the exact searches of faiss, scikit-learn and scikit-learn-intelex, if installed."""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import deepclust_ext
from deepclust_ext.benchmark.case import Case

POINTS, DEPTH, QUERIES = 60_000, 128, 10_000
Search = Callable[[Tensor, Tensor | None, int], Tensor]


def features(points: int = POINTS) -> tuple[Tensor, str]:
    """(points, 128) float32 and where they come from: Fashion-MNIST's principal components, or synthetic clusters."""
    from deepclust_ext.data.named import load_named

    try:
        images = load_named("fashion-mnist", "train").images
    except (FileNotFoundError, ImportError):
        generator = torch.Generator().manual_seed(0)
        centres = torch.randn(1000, DEPTH, generator=generator) * 2
        spread = torch.linspace(1.0, 0.1, DEPTH)
        members = torch.randint(1000, (points,), generator=generator)
        noise = torch.randn(points, DEPTH, generator=generator)
        return (centres[members] + noise) * spread, "synthetic clusters"
    x = images.flatten(1).float() / 255
    x = x - x.mean(0)
    axes = torch.linalg.eigh((x.T @ x).double()).eigenvectors[:, -DEPTH:].flip(1)
    return (x @ axes.float())[:points].contiguous(), "Fashion-MNIST"


def _ours(x: Tensor, query: Tensor | None, k: int) -> Tensor:
    return deepclust_ext.knn(x, k, query=query).values


def _torch(x: Tensor, query: Tensor | None, k: int) -> Tensor:
    """Products in chunks and topk; the norms are added in place."""
    asked, norms, found = x if query is None else query, x.square().sum(1), []
    for start in range(0, len(asked), 1000):
        rows = asked[start : start + 1000]
        distances = torch.addmm(norms, rows, x.T, alpha=-2).add_(rows.square().sum(1, keepdim=True))
        if query is None:
            distances[:, start : start + len(rows)].fill_diagonal_(torch.inf)
        found.append(distances.topk(k, largest=False).values)
    return torch.cat(found).clamp_min(0)


def _faiss(x: Tensor, query: Tensor | None, k: int) -> Tensor:
    faiss: Any = importlib.import_module("faiss")
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatL2(x.shape[1])
    index.add(x.numpy())
    if query is not None:
        return torch.from_numpy(index.search(query.numpy(), k)[0])
    return torch.from_numpy(index.search(x.numpy(), k + 1)[0])[:, 1:]  # the point itself, or a copy, comes first


def _neighbors(package: str) -> Search:
    def search(x: Tensor, query: Tensor | None, k: int) -> Tensor:
        estimator: Any = importlib.import_module(f"{package}.neighbors").NearestNeighbors
        model = estimator(n_neighbors=k, algorithm="brute", n_jobs=torch.get_num_threads()).fit(x.numpy())
        distances = model.kneighbors()[0] if query is None else model.kneighbors(query.numpy())[0]
        return torch.from_numpy(distances).float().square()

    return search


def peers() -> dict[str, Search]:
    """The installed peers by name."""
    # They choose OpenBLAS's kernels, for better or worse: it reads them when it is loaded.
    os.environ.pop("OPENBLAS_CORETYPE", None)
    os.environ.pop("OPENBLAS_L2_SIZE", None)
    known: dict[str, tuple[str, Search]] = {
        "faiss": ("faiss", _faiss),
        "scikit-learn": ("sklearn", _neighbors("sklearn")),
        "scikit-learn-intelex": ("sklearnex", _neighbors("sklearnex")),
    }
    return {name: run for name, (module, run) in known.items() if importlib.util.find_spec(module) is not None}


def cases() -> list[Case]:
    """The graph at three sizes of k, and queries."""
    x, source = features()
    made = []
    for k, queries, target in ((20, None, 2.5), (1, None, 2.5), (200, None, 2.5), (20, QUERIES, 1.3)):

        def call(search: Search, k: int = k) -> Callable[..., Tensor]:
            return lambda x, query=None: search(x, query, k)

        def inputs(generator: torch.Generator, queries: int | None = queries) -> tuple[Tensor, ...]:
            if queries is None:
                return (x,)
            rows = torch.randint(len(x), (queries,), generator=generator)
            return x, x[rows] + 0.1 * torch.randn(queries, DEPTH, generator=generator)

        what = "graph" if queries is None else f"{queries:,} queries"
        found = peers()
        contestants = {name: call(search) for name, search in found.items()}
        if k == 20:
            contestants["torch"] = call(_torch)
        made.append(
            Case(
                "knn",
                f"{what}, {len(x):,} x {DEPTH} {source}, k = {k}",
                inputs,
                call(_ours),
                contestants,
                dict.fromkeys(found, target),
                work=(4.0 * DEPTH * len(x), 2.0 * DEPTH * len(x) * (queries or len(x))),
                gradient=False,
                slow=True,
                cpu_only=frozenset(found),
            )
        )
    return made


def remarks() -> list[str]:
    """How the time grows with the number of points."""
    x, _ = features()
    sizes, turns = (10_000, 20_000, 60_000), 3
    times: dict[int, list[float]] = {n: [] for n in sizes}
    for _ in range(turns):
        for n in sizes:
            part = x[:n].contiguous()
            start = time.perf_counter()
            deepclust_ext.knn(part, 20)
            times[n].append(time.perf_counter() - start)
    medians = {n: statistics.median(t) for n, t in times.items()}
    exponent = math.log(medians[sizes[-1]] / medians[sizes[0]]) / math.log(sizes[-1] / sizes[0])
    shown = ", ".join(f"{n:,}: {seconds:.2f} s" for n, seconds in medians.items())
    return [f"growth of the graph's time, k = 20: N^{exponent:.2f} ({shown})"]
