"""Clusters whose sizes hold: small ones join the nearest, large ones are split, and new rows follow the same rules."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from deepclust_ext.ops.cut import RowBlocks, centroids_of
from deepclust_ext.ops.kmeans import kmeans
from deepclust_ext.training.seeds import derive_seed

# Rows that are projected at a time, in float64.
_CHUNK = 2**14


class Limits(NamedTuple):
    """What is asked of final clusters; None is no limit. See `methods.limits`."""

    min_confidence: float | None = None
    min_cluster_size: int | None = None
    max_cluster_size: int | None = None


@dataclass(frozen=True)
class Regrouping:
    """What became of clusters that were too small or too large; `apply` does the same to other rows.

    Parameters
    ----------
    into : Tensor
        (K,) int64, the cluster that each cluster is part of after merging.
    split : Tensor
        (T, 2) int64: the t-th split makes cluster `split[t, 1]` of a part of cluster `split[t, 0]`.
    directions, thresholds : Tensor
        (T, p) and (T,) float64: that part is the rows whose product with the direction is above the threshold.
    """

    into: Tensor
    split: Tensor
    directions: Tensor
    thresholds: Tensor

    @property
    def changes(self) -> bool:
        """Whether anything was merged or split."""
        return bool(len(self.split)) or bool((self.into != torch.arange(len(self.into))).any())

    def apply(self, labels: Tensor, rows: Tensor) -> Tensor:
        """The clusters (N,) of rows (N, p) that a method labels (N,) in [0, K)."""
        labels = self.into[labels]
        for (old, new), direction, threshold in zip(self.split.tolist(), self.directions, self.thresholds, strict=True):
            members = (labels == old).nonzero().flatten()
            labels[members[_project(rows[members], direction) > threshold]] = new
        return labels

    def origins(self, n_clusters: int) -> Tensor:
        """The cluster (n_clusters,) that each was a part of before anything was split."""
        found = torch.arange(n_clusters)
        for old, new in self.split.tolist():
            found[new] = found[old]
        return found

    def renumbered(self, numbers: Tensor) -> Regrouping:
        """The same with other numbers (G,) for the final clusters."""
        return replace(self, into=numbers[self.into], split=numbers[self.split])

    def state(self) -> dict[str, Tensor]:
        """Tensors for a file, of which `Regrouping(**state)` is this one."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def record(self) -> dict[str, Any]:
        """What metrics say of it: [small, cluster that it joined] and [cluster, new cluster split from it]."""
        joined = (self.into != torch.arange(len(self.into))).nonzero().flatten().tolist()
        return {"merged": [[k, int(self.into[k])] for k in joined], "split": self.split.tolist()}

    @property
    def n_numbers(self) -> int:
        """One more than the largest number of a cluster."""
        return int(torch.cat([self.into, self.split.flatten()]).max()) + 1


def regroup(
    rows: Any,
    labels: Tensor,
    n_clusters: int,
    *,
    min_size: int | None = None,
    max_size: int | None = None,
    seed: int = 0,
) -> tuple[Regrouping, Tensor]:
    r"""Merge clusters below a size and split those above another.

    The smallest cluster joins the one with the nearest centroid, as a whole, until none has fewer than `min_size` rows;
    ties go to the lowest number. Then each cluster with more than M = `max_size` rows is cut in two, and its parts
    again: at right angles to the line through the centroids that k-means finds with K = 2, half-way between them, or,
    where a part would have fewer than :math:`h = \lfloor (M + 1) / 2 \rfloor` rows, just where it has as many. So every
    part has h to M rows. The larger part keeps the number; new ones begin at `n_clusters`. Of rows that are equal those
    that come first stay together.

    Parameters
    ----------
    rows : Tensor, or what is split as one where no cluster is to be
        (N, p) float32, where distances are measured; on the CPU.
    labels : Tensor
        (N,) int64 in [0, n_clusters).
    n_clusters : int
        K.
    min_size, max_size : int, optional
        None is no limit; min_size at most (max_size + 1) // 2.
    seed : int
        For the starts of k-means.

    Returns
    -------
    regrouping : Regrouping
        For other rows. Equal rows are all given to one part of a split.
    labels : Tensor
        (N,) int64.
    """
    into = torch.arange(n_clusters) if min_size is None else _merged(rows, labels, n_clusters, min_size)
    labels = into[labels]
    splits: list[tuple[int, int, Tensor, float]] = []
    if max_size is not None:
        counts = torch.bincount(labels, minlength=n_clusters)
        pending, fresh = (counts > max_size).nonzero().flatten().tolist(), n_clusters
        while pending:
            cluster = pending.pop(0)
            members = (labels == cluster).nonzero().flatten()
            start = derive_seed(seed, "split", fresh)
            part, direction, threshold = _bisected(rows[members], (max_size + 1) // 2, start)
            labels[members[part]] = fresh
            splits.append((cluster, fresh, direction, threshold))
            n_part = int(part.sum())
            pending += [k for k, n in ((cluster, len(members) - n_part), (fresh, n_part)) if n > max_size]
            fresh += 1
    directions = [direction for _, _, direction, _ in splits] or [torch.empty(0, dtype=torch.float64)]
    regrouping = Regrouping(
        into,
        torch.tensor([entry[:2] for entry in splits], dtype=torch.int64).reshape(-1, 2),
        torch.stack(directions).reshape(len(splits), -1 if splits else rows.shape[1]),
        torch.tensor([threshold for *_, threshold in splits], dtype=torch.float64),
    )
    return regrouping, labels


def _merged(rows: RowBlocks, labels: Tensor, n_clusters: int, min_size: int) -> Tensor:
    """The cluster (K,) that each is part of once none but empty ones is too small; see `regroup`."""
    sizes = torch.bincount(labels, minlength=n_clusters)
    sums = centroids_of(rows, labels, n_clusters).nan_to_num(0.0) * sizes[:, None]
    into = torch.arange(n_clusters)
    while int((sizes > 0).sum()) > 1:
        smallest = int(torch.where(sizes > 0, sizes, len(labels) + 1).argmin())
        if sizes[smallest] >= min_size:
            break
        means = sums / sizes.clamp_min(1)[:, None]
        distances = (means - means[smallest]).square().sum(1)
        distances[(sizes == 0) | (torch.arange(n_clusters) == smallest)] = float("inf")
        nearest = int(distances.argmin())
        into[into == smallest] = nearest
        for each in (sizes, sums):
            each[nearest] += each[smallest]
            each[smallest] = 0
    return into


def _bisected(rows: Tensor, least: int, seed: int) -> tuple[Tensor, Tensor, float]:
    """The smaller part (n,) bool of rows (n, p), each part having `least` rows; direction and threshold of it."""
    n = len(rows)
    centroids = kmeans(rows, 2, n_init=3, seed=seed).centroids.double()
    direction = centroids[1] - centroids[0]
    length = direction.norm()
    # Rows that are all equal have no direction, and are told apart by their order alone.
    direction = direction / length if length > 0 else torch.zeros_like(direction)
    middle = float(direction @ centroids.sum(0)) / 2
    values, order = _project(rows, direction).sort(stable=True)
    below = min(max(int((values <= middle).sum()), least), n - least)
    threshold = float(values[below - 1] + values[below]) / 2
    above = order[below:]
    if below < n - below:
        direction, threshold, above = -direction, -threshold, order[:below]
    part = torch.zeros(n, dtype=torch.bool)
    part[above] = True
    return part, direction, threshold


def _project(rows: Tensor, direction: Tensor) -> Tensor:
    """Products (n,) float64 of rows (n, p), each added up by itself: the same for any rows beside it."""
    parts = [(part.double() * direction).sum(1) for part in rows.split(_CHUNK)]
    return torch.cat(parts) if parts else direction.new_empty(0)
