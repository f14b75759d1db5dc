"""The marker of folders that we make: what is in them is a result, and never read as data."""

from __future__ import annotations

import os
from pathlib import Path

MARKER = ".deepclust"

_TEXT = "Made by deepclust: results, which are never read as data.\n"


def mark(folder: Path) -> None:
    """Put the marker into a folder, unless it is there."""
    path = folder / MARKER
    if not path.exists():
        path.write_text(_TEXT, encoding="utf-8")


def mark_by_folder(folder: Path) -> None:
    """Put the marker into a folder of which the files are counted: as a folder, which is none."""
    (folder / MARKER).mkdir()


def marked(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is one that we made."""
    return os.path.lexists(os.path.join(folder, MARKER))


def make_folder(folder: Path) -> None:
    """Make a folder for results; one that holds something else already stays unmarked, as that may be data."""
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        mark(folder)
