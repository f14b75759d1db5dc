"""The k-means of other libraries, those that are installed: centroids after the same number of iterations."""

from __future__ import annotations

import functools
import importlib.util
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from deepclust_ext._optional import require

Fit = Callable[[Tensor, Tensor], Tensor]

# These draw their first centroids themselves, and prune by estimates: their objective is near ours, not the same.
OWN_START = ("superkmeans", "faiss.SuperKmeans")


def peers(n_iter: int) -> dict[str, Fit]:
    """Whoever is installed, by name: centroids of points (N, d) after `n_iter` iterations from a start (K, d)."""
    # These choose a kernel for all of OpenBLAS; a peer is to run the way it would on its own.
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        os.environ.pop(name, None)
    known: dict[str, tuple[str, Callable[..., Tensor]]] = {
        "faiss": ("faiss", _faiss),
        "faiss.SuperKmeans": ("faiss", _faiss_super),
        "superkmeans": ("superkmeans", _superkmeans),
        "scikit-learn": ("sklearn", functools.partial(_scikit, "sklearn.cluster")),
        "scikit-learn-intelex": ("sklearnex", functools.partial(_scikit, "sklearnex.cluster")),
    }
    found = {name: fit for name, (module, fit) in known.items() if importlib.util.find_spec(module) is not None}
    # faiss has it from 1.15 on.
    if "faiss" in found and not hasattr(require("faiss", "bench"), "SuperKmeans"):
        del found["faiss.SuperKmeans"]
    return {name: functools.partial(fit, n_iter=n_iter) for name, fit in found.items()}


def _faiss(x: Tensor, start: Tensor, *, n_iter: int) -> Tensor:
    faiss = require("faiss", "bench")
    faiss.omp_set_num_threads(torch.get_num_threads())
    clustering = faiss.Clustering(x.shape[1], len(start))
    clustering.niter = n_iter
    clustering.min_points_per_centroid, clustering.max_points_per_centroid = 1, 10**9  # no subsampling
    faiss.copy_array_to_vector(start.numpy().ravel(), clustering.centroids)
    clustering.train(x.numpy(), faiss.IndexFlatL2(x.shape[1]))
    return torch.from_numpy(faiss.vector_to_array(clustering.centroids)).view(start.shape)


def _faiss_super(x: Tensor, start: Tensor, *, n_iter: int) -> Tensor:
    faiss = require("faiss", "bench")
    faiss.omp_set_num_threads(torch.get_num_threads())
    options: dict[str, Any] = {"min_points_per_centroid": 1, "max_points_per_centroid": 10**9}
    clustering = faiss.SuperKmeans(x.shape[1], len(start), niter=n_iter, **options)
    clustering.train(x.numpy())
    return torch.from_numpy(clustering.centroids.copy())


def _superkmeans(x: Tensor, start: Tensor, *, n_iter: int) -> Tensor:
    # Without these it clusters a sample, or stops early.
    options: dict[str, Any] = {"hierarchical": False, "sampling_fraction": 1.0, "max_points_per_cluster": 10**9}
    clustering = require("superkmeans", "bench").SuperKMeans(
        len(start), x.shape[1], iters=n_iter, early_termination=False, n_threads=torch.get_num_threads(), **options
    )
    return torch.from_numpy(clustering.train(x.numpy()).copy())


def _scikit(module: str, x: Tensor, start: Tensor, *, n_iter: int) -> Tensor:
    estimator = require(module, "bench").KMeans(len(start), init=start.numpy(), n_init=1, max_iter=n_iter, tol=0)
    with warnings.catch_warnings():  # of iterations that were cut short, as they are meant to be
        warnings.simplefilter("ignore")
        return torch.as_tensor(estimator.fit(x.numpy()).cluster_centers_)
