"""The tree of merges of a run's embedding, for methods that merge: the page cuts it at any number of clusters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from deepclust_ext.ops.affinity_graph import affinity_graph
from deepclust_ext.ops.agglomerate import agglomerate
from deepclust_ext.report.run import Labels, Run

# Of more images the tree is of those on the page: it would take minutes.
MAX_MERGED = 20_000


@dataclass(frozen=True)
class Tree:
    """A merge tree.

    Parameters
    ----------
    sizes : list of int
        Images in each of the m clusters to begin with.
    children : list of (int, int)
        The nodes that each merge joins; the t-th makes node m + t.
    affinities : list of float
        Of each pair.
    leaves : ndarray of int64, shape (P,)
        The first cluster of each image of the page.
    n_images : int
        Images that were merged.
    """

    sizes: list[int]
    children: list[list[int]]
    affinities: list[float]
    leaves: Labels
    n_images: int


def merge_tree(run: Run, rows: Labels) -> Tree | None:
    """Merge a run's embeddings from chains of neighbours to one cluster; None where its method does not merge.

    Parameters
    ----------
    run : Run
        Its parameters say how the graph is made.
    rows : ndarray of int64, shape (P,)
        The images of the page.
    """
    p: dict[str, Any] = run.config.get("parameters") or {}
    if run.embeddings is None or run.method not in ("JULE", "Affinity") or len(rows) < 3:
        return None
    whole = len(run.labels) <= MAX_MERGED
    points = torch.from_numpy(run.embeddings if whole else run.embeddings[rows])
    k = min(int(p["n_neighbors"] if run.method == "JULE" else p["k"]), len(points) - 1)
    update = {"update": p["update"]} if "update" in p else {}
    found = agglomerate(affinity_graph(points, k, a=p["a"]), 1, kc=p["kc"], lam=p["lam"], x=points, **update)
    first = found.initial_labels.numpy()
    return Tree(
        np.bincount(first).tolist(),
        found.children.tolist(),
        [float(f"{value:.3g}") for value in found.affinities.tolist()],
        first[rows] if whole else first,
        len(points),
    )
