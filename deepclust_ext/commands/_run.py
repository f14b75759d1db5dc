"""The run folder as commands use it: with the request for its data, and a word on files that were left out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from deepclust_ext.commands._show import note
from deepclust_ext.commands._tensorboard import Board
from deepclust_ext.data import Items
from deepclust_ext.data.cache import FOLDER
from deepclust_ext.data.source import Source
from deepclust_ext.data.walk import OURS
from deepclust_ext.runs import RunDirectory, RunError
from deepclust_ext.runs.directory import Mode


def load(source: Source, *, min_images: int = 2, beside: Path | None = None, quiet: bool = False) -> Items:
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
    """
    cache = None if beside is None else beside.parent / FOLDER
    # A bar in a terminal, lines in a log.
    progress = False if quiet else True if sys.stderr.isatty() else note
    images = source.load(min_images=min_images, cache=cache, progress=progress)
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
    """A run folder whose config.yaml also says how the command line asked for the data; with curves if asked for."""

    def __init__(self, path: Path, mode: Mode, *, source: Source, tensorboard: bool = False) -> None:
        super().__init__(path, mode)
        self.source = source
        self._board = Board(path) if tensorboard else None

    def log(self, event: str, **fields: Any) -> None:
        """Draw what is logged too."""
        super().log(event, **fields)
        if self._board is not None:
            self._board.log(event, fields)

    def close(self) -> None:
        """Close the curves too."""
        if self._board is not None:
            self._board.close()
        super().close()

    def write_config(self, config: dict[str, Any]) -> None:
        """Add the request to the data's entry."""
        super().write_config({**config, "data": {**config["data"], "request": self.source.record()}})


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
