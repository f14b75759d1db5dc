"""Every file below a folder, once: links are followed, our own results are left out, and nothing vanishes unnamed."""

from __future__ import annotations

import heapq
import os
from pathlib import Path

from deepclust_ext.runs.marker import MARKER, marked

EXTENSIONS = frozenset(
    {".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm"}
    | {".ppm", ".tga", ".tif", ".tiff", ".webp"}
)
OURS = "a folder of results made by deepclust"


def list_files(root: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """List the image files below a folder, and all else.

    Links to folders and to files are followed. A folder or file with several paths is listed under one of them, the
    one without links if there is one, else the first in sorted order; the others are named with the reason. Hidden
    files and folders are left alone: they hold thumbnails and copies.

    Parameters
    ----------
    root : Path
        The folder.

    Returns
    -------
    files : list of str
        Sorted paths relative to `root`, with forward slashes.
    others : list of (str, str)
        Path and reason of what is no image file, and of every folder that is not entered.
    """
    walk = _Walk(root)
    walk.enter("", os.path.realpath(root))
    while walk.folder_links:
        walk.follow_folder(heapq.heappop(walk.folder_links))
    # After all folders: only then is it known which files have a path without links.
    for name in sorted(walk.file_links):
        walk.follow_file(name)
    return sorted(walk.files.values()), walk.others


class _Walk:
    """What has been found so far, by real path, which tells whether two names are one."""

    def __init__(self, root: Path) -> None:
        self.root = os.fspath(root)
        self.real_root = os.path.realpath(root)
        self.folders: dict[str, str] = {}
        self.files: dict[str, str] = {}
        self.others: list[tuple[str, str]] = []
        self.folder_links: list[str] = []
        self.file_links: list[str] = []

    def enter(self, name: str, real: str) -> None:
        """List a folder and, without links, all below it."""
        pending = [(name, real)]
        while pending:
            name, real = pending.pop()
            if real in self.folders:
                self.others.append((name, f"a folder that is read already, as {self.folders[real] or '.'!r}"))
                continue
            self.folders[real] = name
            try:
                with os.scandir(os.path.join(self.root, name)) as listing:
                    entries = list(listing)
            except OSError as error:
                self.others.append((name or ".", f"folder cannot be read: {error.strerror}"))
                continue
            if name and any(entry.name == MARKER for entry in entries):
                self.others.append((name, OURS))
                continue
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                inner, inner_real = f"{name}/{entry.name}" if name else entry.name, os.path.join(real, entry.name)
                if entry.is_symlink():
                    self._note_link(inner)
                elif entry.is_dir():
                    pending.append((inner, inner_real))
                else:
                    self._add(inner, inner_real)

    def follow_folder(self, name: str) -> None:
        """Enter a linked folder, unless that would lead in a circle or into results."""
        real = os.path.realpath(os.path.join(self.root, name))
        above = _and_parents(self.real_root)
        if real in above:
            self.others.append((name, "a link to a folder that holds it"))
        elif any(marked(folder) for folder in _and_parents(real) if folder not in above):
            self.others.append((name, OURS))
        else:
            self.enter(name, real)

    def follow_file(self, name: str) -> None:
        """Take a linked file, unless it is there already."""
        real = os.path.realpath(os.path.join(self.root, name))
        if real in self.files:
            self.others.append((name, f"a link to a file that is read already, as {self.files[real]!r}"))
        else:
            self._add(name, real)

    def _note_link(self, name: str) -> None:
        """Keep a link for later."""
        path = os.path.join(self.root, name)
        if os.path.isdir(path):
            heapq.heappush(self.folder_links, name)
        elif os.path.exists(path):
            self.file_links.append(name)
        else:
            self.others.append((name, "a link to nothing"))

    def _add(self, name: str, real: str) -> None:
        """Add a file to the images or to the others."""
        extension = os.path.splitext(name)[1].lower()
        if extension in EXTENSIONS:
            self.files[real] = name
        else:
            self.others.append((name, f"not an image file (extension {extension or 'missing'})"))


def _and_parents(path: str) -> list[str]:
    """A real path and the folders it lies in."""
    return [path, *map(str, Path(path).parents)]
