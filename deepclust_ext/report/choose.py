"""Which images stand on the page: all of them, or the samples of each cluster and a random part of the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from deepclust_ext.report.run import APART, Labels, Run
from deepclust_ext.training.seeds import derive_generator

# Beyond this a page would be slow to make and to open.
MAX_SHOWN = 6_000
# Clusters with samples of their own: the largest, where there are more.
MAX_CLUSTERS = 120
# Samples of a cluster, most and least confident together.
SAMPLES, ALL_SAMPLES = (8, 40), 1_600


@dataclass(frozen=True)
class Samples:
    """Images of one cluster, as places in `Shown.rows`: the most confident first, and the least confident first."""

    cluster: int
    most: list[int]
    least: list[int]


@dataclass(frozen=True)
class Shown:
    """What stands on the page.

    Parameters
    ----------
    rows : ndarray of int64, shape (P,)
        Ascending rows of the run.
    samples : list of Samples
        Of each cluster that is shown, by its number; that of images apart from all is last.
    n_images : int
        N.
    """

    rows: Labels
    samples: list[Samples]
    n_images: int

    @property
    def complete(self) -> bool:
        """Whether every image is on the page."""
        return len(self.rows) == self.n_images


def choose(run: Run) -> Shown:
    """Choose the images of a run's page; the seed of the run draws those that stand for the rest."""
    n = len(run.labels)
    counts = np.bincount(run.labels[run.labels >= 0], minlength=run.n_clusters)
    largest = np.sort(np.argsort(-counts, kind="stable")[:MAX_CLUSTERS]).tolist()
    if (run.labels == APART).any():
        largest.append(APART)
    each = min(SAMPLES[1], max(SAMPLES[0], ALL_SAMPLES // max(1, len(largest)))) // 2
    # NaN stands for unknown, and is below every known confidence.
    sure = np.nan_to_num(run.confidence, nan=-1.0)
    found = {}
    for cluster in largest:
        members = np.flatnonzero(run.labels == cluster)
        order = members[np.argsort(-sure[members], kind="stable")]
        most = order[:each]
        # No image stands in both.
        found[cluster] = most, order[max(len(most), len(order) - each) :][::-1]
    rows = np.arange(n)
    if n > MAX_SHOWN:
        chosen = np.unique(np.concatenate([part for pair in found.values() for part in pair]))
        order = torch.randperm(n, generator=derive_generator(run.seed, "report")).numpy()
        rest = order[~np.isin(order, chosen)][: max(0, MAX_SHOWN - len(chosen))]
        rows = np.sort(np.concatenate([chosen, rest]))
    samples = [
        Samples(cluster, *(np.searchsorted(rows, part).tolist() for part in pair)) for cluster, pair in found.items()
    ]
    return Shown(rows, samples, n)
