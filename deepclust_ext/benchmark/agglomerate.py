"""Clustering of a nearest-neighbour graph beside scikit-learn's ward linkage of the same graph, and genieclust."""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import deepclust_ext
from deepclust_ext._optional import require
from deepclust_ext.benchmark.case import Contest
from deepclust_ext.ops import _raw

NEIGHBOURS = 20
TARGET = 3.0
SIZES = (10_000, 20_000, 40_000, 70_000)

Fit = Callable[[deepclust_ext.AffinityGraph, Tensor, int], Any]


def normalised(images: Any) -> Tensor:
    """Images as rows, centred per pixel, then L2-normalised: what graphs of pixels are made of."""
    x = torch.as_tensor(images).flatten(1).float()
    return torch.nn.functional.normalize(x - x.mean(0))


@functools.lru_cache(maxsize=1)
def images() -> tuple[str, Tensor, Tensor]:
    """Name, rows and classes: MNIST's 10,000 test images from $DEEPCLUST_DATA/mnist.npz, or scikit-learn's digits."""
    file = Path(os.environ.get("DEEPCLUST_DATA", "")) / "mnist.npz"
    if file.is_file():
        with np.load(file) as found:
            return "MNIST-test", normalised(found["x_test"]), torch.as_tensor(found["y_test"]).long()
    digits = require("sklearn.datasets", "bench").load_digits()
    return "digits", normalised(digits.images), torch.as_tensor(digits.target).long()


def ours(graph: deepclust_ext.AffinityGraph, x: Tensor, n_clusters: int) -> Any:
    """Labels by graph degree linkage."""
    return deepclust_ext.agglomerate(graph, n_clusters, lam=0.0, x=x).labels.cpu().numpy()


def ward(graph: deepclust_ext.AffinityGraph, x: Tensor, n_clusters: int) -> Any:
    """Labels by scikit-learn's ward linkage, which merges along the graph's edges alone."""
    sparse = require("scipy.sparse", "bench")
    n, k = graph.indices.shape
    edges = (np.ones(n * k), graph.indices.numpy().ravel(), np.arange(0, n * k + 1, k))
    connectivity = sparse.csr_matrix(edges, shape=(n, n))
    estimator = require("sklearn.cluster", "bench").AgglomerativeClustering
    return estimator(n_clusters, connectivity=connectivity.maximum(connectivity.T)).fit_predict(x.numpy())


def genie(graph: deepclust_ext.AffinityGraph, x: Tensor, n_clusters: int) -> Any:  # noqa: ARG001
    """Labels by genieclust, which finds neighbours of its own."""
    return require("genieclust", "bench").Genie(n_clusters=n_clusters).fit_predict(x.numpy())


def peers() -> dict[str, Fit]:
    """The installed ones."""
    known: dict[str, tuple[str, Fit]] = {"ward": ("sklearn", ward), "genieclust": ("genieclust", genie)}
    return {name: fit for name, (module, fit) in known.items() if importlib.util.find_spec(module) is not None}


def _nmi(labels: Any, classes: Tensor) -> float:
    score = require("sklearn.metrics", "bench").normalized_mutual_info_score
    return float(score(classes.numpy(), labels, average_method="geometric"))


def _growth() -> list[str]:
    """How the time of merging alone grows, on points of a mixture."""
    seconds = {}
    for n in SIZES:
        generator = torch.Generator().manual_seed(0)
        centres = torch.randn(100, 8, generator=generator)
        members = torch.randint(100, (n,), generator=generator)
        x = centres[members] + 0.3 * torch.randn(n, 8, generator=generator)
        graph = deepclust_ext.affinity_graph(x, NEIGHBOURS)
        start = deepclust_ext.initial_clusters(graph.indices)
        best = math.inf
        for _ in range(3):
            begin = time.perf_counter()
            _raw.agglomerate(graph.indices, graph.weights, start, int(start.max()) + 1, 100, 5, 1.0, 0, x)
            best = min(best, time.perf_counter() - begin)
        seconds[n] = best
    exponent = math.log(seconds[SIZES[-1]] / seconds[SIZES[0]]) / math.log(SIZES[-1] / SIZES[0])
    shown = ", ".join(f"{n:,}: {value:.2f} s" for n, value in seconds.items())
    return [f"growth of merging, {NEIGHBOURS} neighbours, mixture of 100 in 8 dimensions: N^{exponent:.2f} ({shown})"]


def cases() -> list[Contest]:
    """Down to as many clusters as there are classes."""
    name, x, classes = images()
    n_clusters = len(classes.unique())
    graph = deepclust_ext.affinity_graph(x, NEIGHBOURS)
    scores: dict[str, float] = {}

    def contestants(device: str) -> dict[str, Callable[[], Any]]:
        rows, edges = x.to(device), deepclust_ext.AffinityGraph(*(t.to(device) for t in graph))
        found = {"ours": ours} | (peers() if rows.device.type == "cpu" else {})
        return {who: functools.partial(fit, edges, rows, n_clusters) for who, fit in found.items()}

    def disagreement(results: dict[str, Any]) -> str:
        # Other criteria find other clusters; they must not be better ones.
        scores.update({who: _nmi(labels, classes) for who, labels in results.items()})
        better = [who for who, score in scores.items() if score > scores["ours"]]
        return f"{better[0]}: NMI {scores[better[0]]:.3f}, ours {scores['ours']:.3f}" if better else ""

    def remarks(_medians: dict[str, float]) -> list[str]:
        return ["NMI: " + ", ".join(f"{who} {score:.3f}" for who, score in scores.items()), *_growth()]

    label = f"{name}, {len(x):,} points, {NEIGHBOURS} neighbours, to {n_clusters} clusters"
    return [Contest("agglomerate", label, contestants, disagreement, {"ward": TARGET}, 3, remarks)]
