"""Numbers of clusters that last: a new fit takes over those of an earlier run, as far as its clusters are the same."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deepclust_ext.data.items import Items
from deepclust_ext.evaluate import hungarian_mapping
from deepclust_ext.runs import RunError
from deepclust_ext.runs.directory import LABELS

Labels = npt.NDArray[np.int64]


def read_clusters(path: Path) -> dict[str, int]:
    """The cluster of each path in a labels.csv, -1 for none."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        if header[:2] != ["path", "cluster"]:
            raise RunError(f"{str(path)!r} is no labels.csv: it must have the columns path, cluster, ..., got {header}")
        return {row[0]: int(row[1]) for row in rows}


def changed_names(run: Path, images: Items) -> str:
    """Sentences on which images are new to a run and which are gone, and what can be done; "" for one without results.

    Parameters
    ----------
    run : Path
        Its folder.
    images : Items
        What it is to go on with.
    """
    if not (run / LABELS).is_file():
        return ""
    before = read_clusters(run / LABELS)
    new = [name for name in images.names if name not in before]
    gone = sorted(before.keys() - set(images.names))
    if not new and not gone:
        return f"The {images.kind} have the same names, and other values. "
    parts = [
        f"{len(names)} {what}, the first {names[0]!r}"
        for names, what in ((new, f"of {len(images)} {images.kind} are new"), (gone, f"of {len(before)} are gone"))
        if names
    ]
    hint = ""
    if new:
        hint = (
            "deepclust predict --only-new labels the new ones alone; fit --warm-start with a new folder fits all again "
            "and keeps the clusters' numbers. "
        )
    return f"{'; '.join(parts)}. {hint}"


@dataclass(frozen=True)
class Earlier:
    """The clusters that an earlier run gave to images which are there again.

    Parameters
    ----------
    source : str
        The run's folder.
    clusters : ndarray of int64, shape (N,)
        -1 for an image that the run does not have, or was unsure of.
    """

    source: str
    clusters: Labels

    @classmethod
    def of_run(cls, run: str | os.PathLike[str], images: Items) -> Earlier:
        """Those of a finished run, found by the names of the images."""
        path = Path(run) / LABELS
        if not path.is_file():
            raise RunError(f"warm start: {os.fspath(run)!r} must be the folder of a finished run: it has no {LABELS}")
        known = read_clusters(path)
        found = np.array([known.get(name, -1) for name in images.names], dtype=np.int64)
        if (found < 0).all():
            raise RunError(
                f"warm start: {os.fspath(run)!r} must have clustered some of the {len(images)} {images.kind}, got none "
                f"of the same name: it has {next(iter(known), 'none')!r}, and here is {images.names[0]!r}"
            )
        return cls(os.path.abspath(run), found)

    def numbers(self, clusters: Labels, n_clusters: int) -> tuple[Labels, dict[str, Any]]:
        """New numbers (n_clusters,) for clusters (N,), and what metrics say of them.

        Clusters are matched one to one with the earlier ones by the Hungarian method, so that the most images keep
        theirs. One that has no image of its match gets the lowest number that no cluster has, nor had.
        """
        both = self.clusters >= 0
        matches = np.full(n_clusters, -1, dtype=np.int64)
        mapping = hungarian_mapping(clusters[both], self.clusters[both])
        matches[: len(mapping)] = mapping
        shared = np.zeros(n_clusters, dtype=np.int64)
        np.add.at(shared, clusters[both], matches[clusters[both]] == self.clusters[both])
        matches[shared == 0] = -1
        taken = set(matches.tolist()) | set(self.clusters.tolist())
        fresh = iter(number for number in range(2 * (n_clusters + len(taken))) if number not in taken)
        used = np.isin(np.arange(n_clusters), clusters)
        # Those with images first: the numbers of others are seen by nobody.
        for cluster in (*np.flatnonzero((matches < 0) & used), *np.flatnonzero((matches < 0) & ~used)):
            matches[cluster] = next(fresh)
        kept = int((matches[clusters[both]] == self.clusters[both]).sum())
        return matches, {
            "run": self.source,
            "n_images": int(both.sum()),
            "n_kept": kept,
            "new_clusters": sorted(set(matches[used].tolist()) - set(self.clusters.tolist())),
            "lost_clusters": sorted(set(self.clusters[both].tolist()) - set(matches[used].tolist())),
        }
