"""k-means against torch and the k-means of faiss, scikit-learn and scikit-learn-intelex: the same Lloyd iterations."""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import deepclust_ext
from deepclust_ext._optional import require
from deepclust_ext.benchmark.case import Contest

N_ITER = 20
TARGET = 1.5
# Peers add up in another order, points that are nearly tied go another way, and twenty iterations carry that on.
TOLERANCE = 1e-4
# Clusters, and turns of each contestant; at 5000 a turn of a peer takes half a minute, and no ratio is asked.
CLUSTERS = {10: 7, 100: 5, 1000: 3, 5000: 1}
# Products that plain torch makes at once: hardly felt on a CPU, while a GPU wants to be filled.
PRODUCTS = {"cpu": 2**20, "cuda": 2**26}
SIZES = (10_000, 20_000, 40_000, 60_000)
GROWTH_CLUSTERS = 100

Fit = Callable[[Tensor, Tensor], Tensor]


@functools.lru_cache(maxsize=2)
def points(whitened: bool) -> tuple[str, Tensor]:
    """The name and the 60000 x 256 points: Fashion-MNIST's principal components, or made-up ones without the data."""
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
    features, transform = deepclust_ext.pca_whiten(raw, 256)
    if whitened:
        return f"{name}, whitened", features
    return name, (raw - transform.mean) @ transform.components.T


def ours(x: Tensor, start: Tensor) -> Tensor:
    """The centroids after N_ITER iterations of our own."""
    return deepclust_ext.kmeans(x, len(start), init=start, max_iter=N_ITER).centroids


def _torch(x: Tensor, start: Tensor) -> Tensor:
    """Lloyd's iterations in plain torch: products in chunks, argmin, index_add_."""
    centroids = start
    for _ in range(N_ITER):
        norms = centroids.square().sum(1)
        rows = x.split(max(1, PRODUCTS[x.device.type] // len(start)))
        labels = torch.cat([torch.addmm(norms, some, centroids.T, alpha=-2).argmin(1) for some in rows])
        sums = torch.zeros_like(centroids).index_add_(0, labels, x)
        counts = torch.bincount(labels, minlength=len(start))[:, None]
        centroids = torch.where(counts > 0, sums / counts, centroids)
    return centroids


def _faiss(x: Tensor, start: Tensor) -> Tensor:
    faiss = require("faiss", "bench")
    faiss.omp_set_num_threads(torch.get_num_threads())
    clustering = faiss.Clustering(x.shape[1], len(start))
    clustering.niter = N_ITER
    clustering.min_points_per_centroid, clustering.max_points_per_centroid = 1, 10**9  # no subsampling
    faiss.copy_array_to_vector(start.numpy().ravel(), clustering.centroids)
    clustering.train(x.numpy(), faiss.IndexFlatL2(x.shape[1]))
    return torch.from_numpy(faiss.vector_to_array(clustering.centroids)).view(start.shape)


def _scikit(module: str, x: Tensor, start: Tensor) -> Tensor:
    estimator = require(module, "bench").KMeans(len(start), init=start.numpy(), n_init=1, max_iter=N_ITER, tol=0)
    with warnings.catch_warnings():  # of iterations that were cut short, as they are meant to be
        warnings.simplefilter("ignore")
        return torch.as_tensor(estimator.fit(x.numpy()).cluster_centers_)


def peers() -> dict[str, Fit]:
    """Whoever is installed."""
    # These choose a kernel for all of OpenBLAS; a peer is to run the way it would on its own.
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        os.environ.pop(name, None)
    known: dict[str, tuple[str, Fit]] = {
        "faiss": ("faiss", _faiss),
        "scikit-learn": ("sklearn", functools.partial(_scikit, "sklearn.cluster")),
        "scikit-learn-intelex": ("sklearnex", functools.partial(_scikit, "sklearnex.cluster")),
    }
    return {name: fit for name, (module, fit) in known.items() if importlib.util.find_spec(module) is not None}


def objective(x: Tensor, centroids: Tensor) -> float:
    """The sum of squared distances, the same way for everybody."""
    return deepclust_ext.kmeans_assign(x, centroids).squared_distances.double().sum().item()


def _disagreement(x: Tensor, results: dict[str, Any]) -> str:
    values = {name: objective(x, centroids) for name, centroids in results.items()}
    for name, value in values.items():
        if not abs(value - values["ours"]) <= TOLERANCE * values["ours"]:
            return f"{name}: objective {value:.6g}, ours {values['ours']:.6g}"
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
    """Principal components as they are, on which bounds find much to skip, and whitened, on which they find little."""
    made = []
    for whitened in (False, True):
        for clusters, turns in CLUSTERS.items():
            if whitened and clusters > 1000:
                continue

            def contestants(
                device: str, whitened: bool = whitened, clusters: int = clusters
            ) -> dict[str, Callable[[], Any]]:
                x = points(whitened)[1]
                start = _start(x, clusters).to(device)
                fits = {"ours": ours, "torch": _torch} | (peers() if start.device.type == "cpu" else {})
                return {name: functools.partial(fit, x.to(device), start) for name, fit in fits.items()}

            def disagreement(results: dict[str, Any], whitened: bool = whitened) -> str:
                return _disagreement(points(whitened)[1].to(results["ours"].device), results)

            def remarks(medians: dict[str, float], whitened: bool = whitened, clusters: int = clusters) -> list[str]:
                name, x = points(whitened)
                lines = [f"data: {name}", *_seeding_share(x, clusters, medians)]
                return lines + (_growth(x) if clusters == GROWTH_CLUSTERS else [])

            made.append(
                Contest(
                    "kmeans",
                    f"60000 x 256{' whitened' if whitened else ''}, K = {clusters}, {N_ITER} iterations",
                    contestants,
                    disagreement,
                    dict.fromkeys(peers(), TARGET) if clusters <= 1000 else {},
                    turns,
                    remarks,
                )
            )
    return made
