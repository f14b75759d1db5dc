"""k-means against plain torch and the k-means of other libraries: the same number of Lloyd iterations."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import deepclust_ext
from deepclust_ext.benchmark.case import Contest
from deepclust_ext.benchmark.kmeans_peers import OWN_START, peers

N_ITER = 20
TARGET = 1.5
# Peers add up in another order, points that are nearly tied go another way, and twenty iterations carry that on.
TOLERANCE = 1e-4
# What ours does with clusters that run empty where a peer is checked: as that peer does. One cluster that is split or
# left where it is makes a percent of the objective.
EMPTY_RULES = {"torch": "keep"}
# Those with another start come to another minimum, within this of ours; if they were better, we would stop too early.
OWN_START_TOLERANCE = 0.02
# Clusters, and turns of each contestant.
CLUSTERS = {10: 7, 100: 5, 1000: 3, 4000: 3}
# From here on only the fastest: a turn of the others takes half a minute.
MANY = 4000
# Products that plain torch makes at once: hardly felt on a CPU, while a GPU wants to be filled.
PRODUCTS = {"cpu": 2**20, "cuda": 2**26}
# Of points, and their dimensions. Ten clusters of pixels are too few to tell anything new.
KINDS = {"components": 256, "whitened": 256, "pixels": 784}
LEFT_OUT = {("whitened", MANY), ("pixels", 10)}
SIZES = (10_000, 20_000, 40_000, 60_000)
GROWTH_CLUSTERS = 100

Fit = Callable[[Tensor, Tensor], Tensor]


@functools.lru_cache(maxsize=3)
def points(kind: str) -> tuple[str, Tensor]:
    """The name and 60000 points of Fashion-MNIST, or made-up ones without it.

    Parameters
    ----------
    kind : {"components", "whitened", "pixels"}
        The first 256 principal components as they are, on which bounds find much to skip; whitened, on which they find
        little; or the 784 pixels.
    """
    try:
        from deepclust_ext.data import load_data

        raw = torch.as_tensor(load_data("fashion-mnist").images).flatten(1).float() / 255
        name = "Fashion-MNIST"
    except (ImportError, FileNotFoundError):
        generator = torch.Generator().manual_seed(0)
        spread = torch.linspace(2.0, 0.05, 784)
        centres = torch.randn(200, 784, generator=generator) * spread
        raw = centres[torch.randint(200, (60_000,), generator=generator)]
        raw = raw + torch.randn(60_000, 784, generator=generator) * spread / 2
        name = "synthetic"
    if kind == "pixels":
        return name, raw
    features, transform = deepclust_ext.pca_whiten(raw, 256)
    return name, features if kind == "whitened" else (raw - transform.mean) @ transform.components.T


def ours(x: Tensor, start: Tensor, *, empty: str = "split") -> Tensor:
    """The centroids after N_ITER iterations of our own."""
    return deepclust_ext.kmeans(x, len(start), init=start, max_iter=N_ITER, empty=empty).centroids


def _torch(x: Tensor, start: Tensor) -> Tensor:
    """Lloyd's iterations in plain torch: products in chunks, argmin, index_add_. An empty cluster stays where it is."""
    centroids = start
    for _ in range(N_ITER):
        norms = centroids.square().sum(1)
        rows = x.split(max(1, PRODUCTS[x.device.type] // len(start)))
        labels = torch.cat([torch.addmm(norms, some, centroids.T, alpha=-2).argmin(1) for some in rows])
        sums = torch.zeros_like(centroids).index_add_(0, labels, x)
        counts = torch.bincount(labels, minlength=len(start))[:, None]
        centroids = torch.where(counts > 0, sums / counts, centroids)
    return centroids


def objective(x: Tensor, centroids: Tensor) -> float:
    """The sum of squared distances, the same way for everybody."""
    return deepclust_ext.kmeans_assign(x, centroids).squared_distances.double().sum().item()


def _disagreement(x: Tensor, start: Tensor, results: dict[str, Any]) -> str:
    wanted = {"split": objective(x, results["ours"])}
    for name, centroids in results.items():
        value, rule = objective(x, centroids), EMPTY_RULES.get(name, "split")
        if rule not in wanted:
            wanted[rule] = objective(x, ours(x, start, empty=rule))
        tolerance = OWN_START_TOLERANCE if name in OWN_START else TOLERANCE
        if not abs(value - wanted[rule]) <= tolerance * wanted[rule]:
            return f"{name}: objective {value:.6g}, ours {wanted[rule]:.6g}"
    return ""


def _start(x: Tensor, clusters: int) -> Tensor:
    return x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:clusters]].clone()


def _seconds(run: Callable[[], Any], turns: int = 3) -> float:
    best = math.inf
    for _ in range(turns):
        begin = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - begin)
    return best


def _seeding_share(x: Tensor, clusters: int, medians: dict[str, float]) -> list[str]:
    """What k-means++ adds; it should stay below a fifth of the run it starts."""
    start = _start(x, clusters)
    drawn, given = math.inf, math.inf
    for _ in range(5):  # in turn, the least of each: their difference is small
        drawn = min(drawn, _seconds(lambda: deepclust_ext.kmeans(x, clusters, max_iter=0), 1))
        given = min(given, _seconds(lambda: deepclust_ext.kmeans(x, clusters, init=start, max_iter=0), 1))
    seconds = drawn - given
    share = max(0.0, seconds) / (max(0.0, seconds) + medians["ours"] / 1e6)
    return [f"k-means++ start {1e3 * seconds:.1f} ms: {share:.0%} of start and run (target <= 20 %)"]


def _growth(x: Tensor) -> list[str]:
    """The exponent of the time in N, by least squares on logarithms."""
    logs = [(math.log(n), math.log(_seconds(lambda n=n: ours(x[:n], _start(x[:n], GROWTH_CLUSTERS))))) for n in SIZES]  # type: ignore[misc]
    mean_n, mean_t = (sum(column) / len(logs) for column in zip(*logs, strict=True))
    slope = sum((n - mean_n) * (t - mean_t) for n, t in logs) / sum((n - mean_n) ** 2 for n, _ in logs)
    return [f"growth from N = {SIZES[0]:,} to {SIZES[-1]:,} at K = {GROWTH_CLUSTERS}: N^{slope:.2f}"]


def cases() -> list[Contest]:
    """Every kind of points with every number of clusters."""
    return [_contest(kind, clusters) for kind in KINDS for clusters in CLUSTERS if (kind, clusters) not in LEFT_OUT]


def _contest(kind: str, clusters: int) -> Contest:
    others = peers(N_ITER)
    if clusters >= MANY:
        others = {name: others[name] for name in OWN_START if name in others}

    def contestants(device: str) -> dict[str, Callable[[], Any]]:
        x = points(kind)[1]
        start = _start(x, clusters).to(device)
        fits = {"ours": ours} | ({"torch": _torch} if clusters < MANY else {})
        fits |= others if start.device.type == "cpu" else {}
        return {name: functools.partial(fit, x.to(device), start) for name, fit in fits.items()}

    def disagreement(results: dict[str, Any]) -> str:
        device, x = results["ours"].device, points(kind)[1]
        return _disagreement(x.to(device), _start(x, clusters).to(device), results)

    def remarks(medians: dict[str, float]) -> list[str]:
        name, x = points(kind)
        lines = [f"data: {name}", *_seeding_share(x, clusters, medians)]
        return lines + (_growth(x) if clusters == GROWTH_CLUSTERS else [])

    said = f"60000 x {KINDS[kind]}{' whitened' if kind == 'whitened' else ''}, K = {clusters}, {N_ITER} iterations"
    return Contest(
        "kmeans", said, contestants, disagreement, dict.fromkeys(others, TARGET), CLUSTERS[clusters], remarks
    )
