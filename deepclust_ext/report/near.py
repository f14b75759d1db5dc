"""What is near what: the neighbours of each image of the page, and what they say of each cluster."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from deepclust_ext.ops.knn import knn
from deepclust_ext.report.run import APART, Floats, Labels, Run

NEIGHBOURS = 10
WORST = 5


@dataclass(frozen=True)
class Near:
    """Neighbours among the images of the page.

    Parameters
    ----------
    indices : ndarray of int64, shape (P, k)
        Places in `Shown.rows`, the nearest first.
    worst : ndarray of int64, shape (5,) or fewer
        The images whose neighbours agree least with them; of several the ones that the run is most sure of.
    by_class : bool
        Whether agreement is in class; else it is in cluster.
    """

    indices: Labels
    worst: Labels
    by_class: bool


def neighbours(run: Run, embeddings: Floats, rows: Labels, classes: Labels | None) -> Near:
    """Look every image of the page up among the others.

    Parameters
    ----------
    run : Run
    embeddings : ndarray of float32, shape (N, d)
    rows : ndarray of int64, shape (P,)
    classes : ndarray of int64, shape (N,), optional
    """
    found = knn(torch.from_numpy(embeddings[rows]), min(NEIGHBOURS, len(rows) - 1)).indices.numpy()
    # Where some have no class, agreement in class would say little.
    by_class = classes is not None and bool((classes >= 0).all())
    groups = (classes if classes is not None and by_class else run.labels)[rows]
    same = (groups[found] == groups[:, None]).mean(1)
    sure = np.nan_to_num(run.confidence[rows], nan=-1.0)
    # lexsort's last key counts first; ties go to the lowest row.
    worst = np.lexsort((-sure, same))
    return Near(found, worst[same[worst] < 1][:WORST], by_class)


@dataclass(frozen=True)
class ClusterFacts:
    """What can be said of one cluster.

    Parameters
    ----------
    cluster : int
    size : int
        Images in it.
    confidence : float or None
        Their mean confidence.
    stays : float or None
        Share of its images' neighbours that are in it, too.
    nearest : int or None
        The other cluster that most of the rest are in.
    leak : float
        The share that is there.
    purity : float or None
        Share of its most frequent class, among its images whose class is known.
    classes : list of (int, float)
        Its most frequent classes with their shares.
    matched : int or None
        The class that the Hungarian method gives it.
    """

    cluster: int
    size: int
    confidence: float | None
    stays: float | None = None
    nearest: int | None = None
    leak: float = 0.0
    purity: float | None = None
    classes: tuple[tuple[int, float], ...] = ()
    matched: int | None = None


def cluster_facts(
    run: Run,
    clusters: list[int],
    rows: Labels,
    near: Near | None,
    classes: Labels | None,
    mapping: Labels | None,
) -> list[ClusterFacts]:
    """Describe clusters; sizes and classes are of all images, neighbours of those on the page."""
    shown = run.labels[rows]
    found = []
    for cluster in clusters:
        members = run.labels == cluster
        sure = run.confidence[members]
        known = sure[np.isfinite(sure)]
        facts: dict[str, object] = {}
        if near is not None and (inside := shown == cluster).any():
            facts |= _neighbourhood(cluster, shown[near.indices[inside]])
        if classes is not None and (classed := members & (classes >= 0)).any():
            values, counts = np.unique(classes[classed], return_counts=True)
            order = np.argsort(-counts, kind="stable")[:3]
            shares = counts[order] / counts.sum()
            facts |= {
                "purity": float(shares[0]),
                "classes": tuple(zip(values[order].tolist(), shares.tolist(), strict=True)),
            }
            if mapping is not None and 0 <= cluster < len(mapping) and mapping[cluster] >= 0:
                facts["matched"] = int(mapping[cluster])
        confidence = float(known.mean()) if len(known) else None
        found.append(ClusterFacts(cluster, int(members.sum()), confidence, **facts))  # type: ignore[arg-type]
    return found


def _neighbourhood(cluster: int, labels: npt.NDArray[np.int64]) -> dict[str, object]:
    """Where the neighbours of a cluster's images are."""
    values, counts = np.unique(labels, return_counts=True)
    shares = dict(zip(values.tolist(), (counts / counts.sum()).tolist(), strict=True))
    stays = shares.pop(cluster, 0.0)
    shares.pop(APART, None)
    nearest = max(shares, key=lambda other: shares[other]) if shares else None
    return {"stays": stays, "nearest": nearest, "leak": shares[nearest] if nearest is not None else 0.0}


def verdict(facts: ClusterFacts, names: tuple[str, ...], n_images: int, n_clusters: int) -> tuple[str, str]:
    """A word and a sentence on a cluster, for a reader who sees such a page for the first time.

    Returns
    -------
    word : {"good", "fair", "mixed", "small", "empty", "apart"}
    sentence : str
    """
    if facts.cluster == APART:
        return "apart", "Images that fit no cluster well enough."
    if facts.size == 0:
        return "empty", "No image is in this cluster."
    parts = []
    if facts.classes:
        first, *others = [f"class {names[c]} ({100 * share:.0f} %)" for c, share in facts.classes if share >= 0.05] or [
            "?"
        ]
        lead = "Nearly all" if facts.purity and facts.purity >= 0.9 else "Mostly" if facts.purity and (
            facts.purity >= 0.6) else "Several classes:"  # fmt: skip
        parts.append(f"{lead} {first}" + (f", with {', '.join(others)}" if others else "") + ".")
    if facts.stays is not None:
        share = f"{100 * facts.stays:.0f} % of its images' nearest neighbours are in it too"
        parts.append(share + ("." if facts.stays >= 0.7 or facts.nearest is None else f"; {100 * facts.leak:.0f} % are "
            f"in cluster {facts.nearest}."))  # fmt: skip
    if facts.size < 0.1 * n_images / n_clusters:
        return "small", " ".join(["Few images: it may be strays.", *parts])
    measures = [m for m in (facts.purity, facts.stays) if m is not None]
    worst = min(measures, default=None)
    word = "fair" if worst is None else "good" if worst >= 0.85 else "fair" if worst >= 0.6 else "mixed"
    return word, " ".join(parts) or "Nothing but its size is known."
