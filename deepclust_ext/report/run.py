"""A finished run as the page sees it: what its folder holds, and the runs of other seeds beside it."""

from __future__ import annotations

import csv
import itertools
import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from deepclust_ext import evaluate
from deepclust_ext.data.later_classes import Classes
from deepclust_ext.runs import RunDirectory, RunError

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Record = dict[str, Any]

# Images that belong to no cluster have this label.
APART = -1
SCORES = ("acc_hungarian", "nmi", "ari", "acc_majority")
# What metrics.json and the log have by classes.
JUDGED = frozenset({*SCORES, "scores", "kmeans_pixels", "below_kmeans_pixels", "nmi_labels", "knn_accuracy",
                    "consistency", "anchor_consistency", "top5"})  # fmt: skip


@dataclass(frozen=True)
class Run:
    """What a run's folder holds.

    Parameters
    ----------
    path : Path
        The folder.
    config, metrics : dict
        Of config.yaml and metrics.json.
    log : list of dict
        The records of log.jsonl.
    names : tuple of str
        One an image.
    labels : ndarray of int64, shape (N,)
        Clusters; -1 for images that are apart from all.
    confidence : ndarray of float32, shape (N,)
    embeddings : ndarray of float32, shape (N, d), or None
        None where embeddings.npz is gone or another run's.
    head : int, optional
        The head whose labels these are, where they are not the run's own.
    """

    path: Path
    config: Record
    metrics: Record
    log: list[Record]
    names: tuple[str, ...]
    labels: Labels
    confidence: Floats
    embeddings: Floats | None = None
    head: int | None = None

    @property
    def method(self) -> str:
        """The method's name."""
        return str(self.config.get("method", "unknown"))

    @property
    def n_clusters(self) -> int:
        """K: what was asked for, or more if there are more."""
        return max(int(self.metrics.get("n_clusters", 0)), int(self.labels.max(initial=APART)) + 1)

    @property
    def seed(self) -> int:
        """Of the run; all that the page draws comes from it too."""
        return int(self.config.get("seed", 0))

    @property
    def epochs(self) -> list[Record]:
        """The log's record of every epoch."""
        return [record for record in self.log if record.get("event") == "epoch"]

    @property
    def scores(self) -> Record:
        """Against classes, of the head that is shown; empty where none were known."""
        if self.head is not None:
            return dict(self.metrics["heads"][self.head].get("scores", {}))
        return dict(self.metrics.get("scores", {}))

    def judged_by(self, found: Classes) -> Run:
        """The same run without what other classes have said of it; `evaluate` may have had these."""
        evaluation = self.metrics.get("evaluation") or {}
        own = evaluation.get("labels") or {}
        same = own.get("n_images") == len(found.rows) and own.get("classes") == list(found.names)
        metrics = _unjudged(self.metrics) | {"evaluation": evaluation if same else {}}
        return replace(self, metrics=metrics, log=_unjudged(self.log))

    def of_head(self, head: int, labels: Labels, confidence: Floats) -> Run:
        """The same run with another head's labels."""
        return replace(self, head=head, labels=labels, confidence=confidence)


def read_run(folder: RunDirectory) -> Run:
    """Read what a finished run has left.

    Parameters
    ----------
    folder : RunDirectory
        Open for reading.

    Raises
    ------
    RunError
        If it has not finished, or its files are another's.
    """
    metrics = folder.read_metrics()
    if not metrics or not (folder.path / "labels.csv").is_file():
        raise RunError(f"report: the run in {str(folder.path)!r} has not finished; resume it first")
    names, labels, confidence = _read_labels(folder.path / "labels.csv")
    embeddings = _read_embeddings(folder.path / "embeddings.npz", len(names))
    return Run(folder.path, folder.read_config(), metrics, folder.read_log(), names, labels, confidence, embeddings)


def _read_labels(path: Path) -> tuple[tuple[str, ...], Labels, Floats]:
    """Names, clusters and confidences; further columns are not looked at."""
    names, labels, confidence = [], [], []
    # The csv module refuses cells above a limit that no path reaches.
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        try:
            for row in csv.DictReader(file):
                names.append(row["path"])
                labels.append(int(row["cluster"]))
                confidence.append(float(row["confidence"] or "nan"))
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise RunError(f"report: {str(path)!r} must have path, cluster and confidence in each row ({error})") from (
                error
            )
    if not names:
        raise RunError(f"report: {str(path)!r} has no rows")
    return tuple(names), np.array(labels, dtype=np.int64), np.array(confidence, dtype=np.float32)


def _read_embeddings(path: Path, n: int) -> Floats | None:
    """The embeddings, if they are of these images and finite."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = np.asarray(arrays["embeddings"], dtype=np.float32)
    except (OSError, KeyError, ValueError):
        return None
    return found if found.ndim == 2 and len(found) == n and found.shape[1] > 0 and np.isfinite(found).all() else None


@dataclass(frozen=True)
class Seeds:
    """Finished runs that differ by their seed alone.

    Parameters
    ----------
    metrics : dict of int to dict
        The content of metrics.json by seed.
    agreement : tuple of float
        NMI of the labels of every pair of seeds.
    """

    metrics: Mapping[int, Record]
    agreement: tuple[float, ...] = field(default=())

    def without_scores(self) -> Seeds:
        """The same seeds without what classes have said of them."""
        return replace(self, metrics=_unjudged(dict(self.metrics)))

    def mean(self, key: str, part: str = "scores") -> tuple[float, float] | None:
        """Mean and sample standard deviation of a score; None where not all have it."""
        values = [
            float(value)
            for value in ((each.get(part) or {}).get(key) for each in self.metrics.values())
            if value is not None
        ]
        if len(values) < max(2, len(self.metrics)):
            return None
        return statistics.fmean(values), statistics.stdev(values)


def _unjudged(value: Any) -> Any:
    """A record, or a list of them, without what classes have said."""
    if isinstance(value, list):
        return [_unjudged(each) for each in value]
    if isinstance(value, dict):
        return {key: _unjudged(each) for key, each in value.items() if key not in JUDGED}
    return value


def find_members(out: Path) -> dict[int, Path]:
    """The folders of finished runs that `fit --seeds` made in `out`, by seed."""
    found = {}
    for path in out.glob("seed-*"):
        number = re.fullmatch(r"seed-(\d+)", path.name)
        if number and all((path / name).is_file() for name in ("config.yaml", "labels.csv", "metrics.json")):
            found[int(number[1])] = path
    return dict(sorted(found.items()))


def read_seeds(members: Mapping[int, Path]) -> Seeds | None:
    """What runs of several seeds have reached, and how far they agree; None of fewer than two."""
    if len(members) < 2:
        return None
    metrics = {seed: RunDirectory(path, mode="read").read_metrics() for seed, path in members.items()}
    labels = [_read_labels(path / "labels.csv")[1] for path in members.values()]
    pairs = [evaluate.nmi(a - a.min(), b - b.min()) for a, b in itertools.combinations(labels, 2) if len(a) == len(b)]
    return Seeds(metrics, tuple(pairs))
