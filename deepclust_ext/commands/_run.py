"""The run folder as commands use it: with the request for its data, and a word on files that were left out."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from deepclust_ext.commands._show import note
from deepclust_ext.data import Items
from deepclust_ext.data.cache import FOLDER
from deepclust_ext.data.source import Source
from deepclust_ext.data.walk import OURS
from deepclust_ext.runs import RunDirectory, RunError
from deepclust_ext.runs.directory import Mode


def load(
    source: Source,
    *,
    min_images: int = 2,
    beside: Path | None = None,
    quiet: bool = False,
    without: Collection[str] = (),
) -> Items:
    """Load the images, and say which files could not be used.

    Parameters
    ----------
    source : Source
        Which.
    min_images : int
        Refuse fewer.
    beside : Path, optional
        The run folder beside which scaled images are kept.
    quiet : bool
        Show no progress.
    without : collection of str
        Of a folder: files that are not read.
    """
    # A cache of the new files alone would take the place of that of all.
    cache = None if beside is None or without else beside.parent / FOLDER
    # A bar in a terminal, lines in a log.
    progress = False if quiet else True if sys.stderr.isatty() else note
    images = source.load(min_images=min_images, cache=cache, progress=progress, without=without)
    own = [path for path, reason in images.skipped if reason == OURS]
    if own:
        note(f"{own[0]!r}{f' and {len(own) - 1} more' if own[1:] else ''}: results of deepclust are not read as data")
    others = [(path, reason) for path, reason in images.skipped if reason != OURS]
    if others:
        path, reason = others[0]
        files = "1 file" if len(others) == 1 else f"{len(others)} files"
        note(f"{files} skipped, the first {path!r}: {reason}")
    return images


class SourcedRun(RunDirectory):
    """A run folder whose config.yaml also says how the command line asked for the data.

    `choice` is what a number of clusters was chosen by: config.yaml and metrics.json have it too.
    """

    def __init__(
        self, path: Path, mode: Mode, *, source: Source, choice: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        super().__init__(path, mode)
        self.source, self.choice = source, choice or {}

    def write_config(self, config: dict[str, Any]) -> None:
        """Add the request to the data's entry."""
        super().write_config({**config, **self.choice, "data": {**config["data"], "request": self.source.record()}})

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Add the choice."""
        super().write_metrics({**metrics, **self.choice})


def open_for_reading(path: str) -> RunDirectory:
    """Open one run; the folder of several seeds is refused by name."""
    where = Path(path)
    if not (where / "config.yaml").exists():
        members = sorted(where.glob("seed-*/config.yaml"))
        if members:
            raise RunError(
                f"run folder: {path!r} holds {len(members)} runs, one a seed; give one of them, "
                f"such as {str(members[0].parent)!r}"
            )
    return RunDirectory(where, mode="read")
