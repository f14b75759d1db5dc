"""Finished runs as `compare` and the summary of a sweep read them: from their files alone."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from deepclust_ext.runs import RunDirectory, RunError
from deepclust_ext.runs.directory import EMBEDDINGS
from deepclust_ext.training.agreement import information_of_labels

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Finished:
    """A finished run: its folder, the content of config.yaml and that of metrics.json."""

    path: Path
    config: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.config["seed"])

    @property
    def settings(self) -> dict[str, Any]:
        """The method and what decides its labels, without the seed."""
        neutral = {"seed", *(self.config.get("result_neutral") or ())}
        parameters = self.config.get("parameters") or {}
        return {"method": self.config.get("method")} | {k: v for k, v in parameters.items() if k not in neutral}

    @property
    def digest(self) -> str:
        """The fingerprint of the data."""
        return str((self.config.get("data") or {}).get("digest"))

    def labels(self) -> Labels:
        """The cluster (N,) of each image."""
        return read_labels(self.path)


@dataclass(frozen=True)
class Group:
    """What `compare` shows in one row: a run, or the finished seeds of a sweep."""

    name: str
    runs: tuple[Finished, ...]
    unfinished: tuple[str, ...] = ()


def read_labels(folder: Path) -> Labels:
    """The clusters (N,) that a finished run wrote, also of images that it was unsure of."""
    try:
        with np.load(folder / EMBEDDINGS, allow_pickle=False) as arrays:
            return np.asarray(arrays["clusters" if "clusters" in arrays else "labels"], dtype=np.int64)
    except (OSError, KeyError, ValueError) as error:
        raise RunError(f"run folder: {str(folder / EMBEDDINGS)!r} cannot be read ({error})") from error


def read_finished(path: Path) -> Finished | None:
    """Read the run in a folder; None where it has not finished, or was killed before its last file was written."""
    run = RunDirectory(path, mode="read")
    metrics = run.read_metrics() if run.holds_results else {}
    return Finished(path, run.read_config(), metrics) if metrics else None


def read_group(path: str) -> Group:
    """Read a run folder, or the folder of several seeds; runs that have not finished are left out by name.

    Raises
    ------
    RunError
        If nothing in the folder has finished, or its seeds are of different settings or data.
    """
    where = Path(path)
    if (where / "config.yaml").is_file():
        found = read_finished(where)
        if found is None:
            raise RunError(f"compare: the run in {path!r} has not finished; resume it first")
        return Group(path, (found,))
    members = sorted((p.parent for p in where.glob("seed-*/config.yaml")), key=_number)
    if not members:
        raise RunError(f"compare: {path!r} holds no run, nor runs in seed-*")
    read = {member.name: read_finished(member) for member in members}
    runs = tuple(run for run in read.values() if run is not None)
    if not runs:
        raise RunError(f"compare: no seed in {path!r} has finished; resume them first")
    for run in runs[1:]:
        changed = differences([runs[0].settings | {"data": runs[0].digest}, run.settings | {"data": run.digest}])
        if changed:
            raise RunError(
                f"compare: the seeds in {path!r} are no repetitions: {', '.join(changed)} of {runs[0].path.name} and "
                f"{run.path.name} differ; give them one by one"
            )
    return Group(path, runs, tuple(name for name, run in read.items() if run is None))


def differences(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names of settings that are not the same everywhere, in the order of their first appearance.

    Examples
    --------
    >>> differences([{"lr": 0.1, "epochs": 5}, {"lr": 0.2, "epochs": 5, "k": 3}])
    ['lr', 'k']
    """
    names = dict.fromkeys(name for each in settings for name in each)
    first = settings[0]
    return [n for n in names if any(n not in each or n not in first or each[n] != first[n] for each in settings)]


def agreement(first: Labels, second: Labels) -> float:
    """NMI of two labellings (N,) of the same images, of any integers; 0 if either is a single cluster.

    Examples
    --------
    >>> agreement(np.array([0, 0, 1, 1]), np.array([7, 7, -1, -1]))
    1.0
    """
    a, b = (torch.from_numpy(np.unique(each, return_inverse=True)[1].reshape(-1)) for each in (first, second))
    n_clusters = int(max(a.max(), b.max())) + 1
    if not int(a.max()) or not int(b.max()):
        return 0.0
    return information_of_labels(a, b, n_clusters)[1]


def pairwise(labels: Mapping[int, Labels], known: dict[tuple[int, int], float]) -> dict[tuple[int, int], float]:
    """`agreement` of all pairs of labellings by their keys; what is `known` is not computed again."""
    pairs = itertools.combinations(labels, 2)
    return {(a, b): known[a, b] if (a, b) in known else agreement(labels[a], labels[b]) for a, b in pairs}


def _number(member: Path) -> tuple[int, str]:
    """Seeds in the order of their numbers."""
    text = member.name.removeprefix("seed-")
    return (int(text) if text.isdecimal() else 0, text)
