"""What benchmarks/study_embeddings.py sets beside our methods: UMAP with k-means or HDBSCAN, and a consensus of heads.

Each function leaves a metrics.json in the form that the study's table reads.
"""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepclust_ext import evaluate
from deepclust_ext.methods.fitting import Clusterer
from deepclust_ext.ops.cut import smallest_cluster
from deepclust_ext.training.inference import forward_batches

# As UMAP's documentation has it for clustering, in 10 dimensions.
UMAP = {"n_neighbors": 30, "min_dist": 0.0, "n_components": 10, "metric": "cosine"}
HDBSCAN = {"min_cluster_size": 100}


def write(folder: Path, labels: Any, y: Any, seconds: float, **more: Any) -> None:
    """Write the metrics of labels; rows in no cluster (-1) count as a cluster of their own."""
    labels = np.where(labels < 0, labels.max() + 1, labels)
    folder.mkdir(parents=True, exist_ok=True)
    metrics = {"seconds": seconds, "scores": evaluate.scores(labels, y), "heads": [{}], **more}
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")


def umap_peers(features: Path, runs: Path, seed: int) -> None:
    """UMAP, then k-means with the number of classes, and HDBSCAN, which finds a number of its own."""
    folders = runs / "umap-kmeans" / f"seed-{seed}", runs / "umap-hdbscan" / f"seed-{seed}"
    if all((folder / "metrics.json").exists() for folder in folders):
        return
    try:
        umap, hdbscan = importlib.import_module("umap"), importlib.import_module("sklearn.cluster").HDBSCAN
    except ImportError:
        return
    data = np.load(features)
    x, y = data["embeddings"], data["y"]
    start = time.perf_counter()
    low = umap.UMAP(**UMAP, random_state=seed).fit_transform(x)
    spent = time.perf_counter() - start
    start = time.perf_counter()
    labels = evaluate.cluster_features(low, len(np.unique(y)), seed=seed)
    write(folders[0], labels, y, spent + time.perf_counter() - start)
    start = time.perf_counter()
    labels = hdbscan(**HDBSCAN, copy=True).fit_predict(low)
    found = {"clusters_found": int(labels.max()) + 1, "in_none": float((labels < 0).mean())}
    write(folders[1], labels, y, spent + time.perf_counter() - start, **found)


def consensus(run: Path, features: Path, folder: Path) -> None:
    """Cluster by what all heads of a run say together.

    The product of two rows of probabilities, summed over heads, is the number of heads that put both into one cluster;
    the graph of neighbours by it is merged to as many clusters as the heads have.
    """
    if (folder / "metrics.json").exists():
        return
    data, start = np.load(features), time.perf_counter()
    model = Clusterer.load(run)
    batches = forward_batches(model.net_, model.augmentation_, torch.from_numpy(data["embeddings"]))
    # (H, N, K) to (N, H K).
    rows = torch.cat([probabilities.cpu() for probabilities, _ in batches], dim=1).transpose(0, 1).flatten(1)
    rows = torch.nn.functional.normalize(rows - rows.mean(0))
    size = smallest_cluster(len(rows), model.n_clusters)
    labels = evaluate.cluster_features(rows, model.n_clusters, clusterer="affinity", min_size=size)
    write(folder, labels, data["y"], time.perf_counter() - start)
    by_kmeans = evaluate.cluster_features(rows, model.n_clusters)
    write(folder.parent.with_name(f"{folder.parent.name}-kmeans") / folder.name, by_kmeans, data["y"], 0.0)
