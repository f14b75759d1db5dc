"""Images as they came out of the decoder, kept in a file: a folder of photographs is decoded once."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepclust_ext._optional import require
from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.data.reading import Frame, Reading
from deepclust_ext.runs.atomic import atomic_writer

# The folder beside runs; hidden, so that it is never read as data.
FOLDER = ".deepclust-cache"
# Of all files in it together: the least recently used go first.
MAX_BYTES = 4 * 2**30
# Seconds of decoding from which on a file is worth its place.
WORTH = 5.0
# A file may change once more within the time that its date is rounded to.
_RACY_NS = 2 * 10**9

_NAME = re.compile(r"[0-9a-f]{32}(-\d+)?\.npz")

Stamp = tuple[int, int]


class PixelCache:
    """What was decoded of a folder, by path, size and time of modification of each file.

    Parameters
    ----------
    where : Path
        The folder of cache files; made when one is written.
    root : Path
        The folder of images.
    reading : Reading
        How they are read. Each way has a cache file of its own.
    file_of : callable
        The file of which a name is, or is a part.
    """

    def __init__(self, where: Path, root: Path, reading: Reading, file_of: Callable[[str], Path]) -> None:
        self.file_of = file_of
        key = [os.path.realpath(root), asdict(reading), require("PIL").__version__]
        self.path = where / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.npz"
        self._known = self._load()
        self._stamps: dict[str, Stamp] = {}

    def find(self, name: str) -> list[Frame] | None:
        """The frames of a file, if it is as it was."""
        try:
            status = os.stat(self.file_of(name))
        except OSError:
            return None
        self._stamps[name] = (status.st_size, status.st_mtime_ns)
        stamp, frames = self._known.get(name, (None, []))
        return frames if stamp == self._stamps[name] else None

    def keep(self, files: Mapping[str, Sequence[Frame]], seconds: float) -> None:
        """Write what is worth it; what could not be read is tried again next time.

        Parameters
        ----------
        files : mapping of str to sequence of Frame
            All files of the folder.
        seconds : float
            What decoding took.
        """
        if seconds < WORTH:
            return
        latest = time.time_ns() - _RACY_NS
        table: list[Any] = []
        stacks: dict[int, list[NDArray[np.uint8]]] = {2: [], 3: []}
        for name, frames in files.items():
            if name not in self._stamps or self._stamps[name][1] > latest:
                continue
            rows = []
            for frame in frames:
                if frame.pixels is None:
                    break
                stack = stacks[frame.pixels.ndim]
                rows.append([frame.name, frame.pixels.ndim, len(stack), frame.highest, frame.more])
                stack.append(frame.pixels)
            else:
                table.append([name, *self._stamps[name], rows])
        size = sum(pixels.nbytes for stack in stacks.values() for pixels in stack)
        if not table or size > MAX_BYTES:
            return
        arrays = {f"pixels{ndim}": np.stack(stack) for ndim, stack in stacks.items() if stack}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            make_room(self.path, size)
            # Several runs may begin at once: each writes a file of its own, and the last one stays.
            own = self.path.with_name(f"{self.path.stem}-{os.getpid()}.npz")
            with atomic_writer(own) as file:
                np.savez(file, table=np.frombuffer(json.dumps(table).encode(), np.uint8), **dict[str, Any](arrays))
            os.replace(own, self.path)
        except OSError as error:
            warnings.warn(f"load_data: the cache cannot be written ({error})", DeepclustWarning, stacklevel=2)

    def _load(self) -> dict[str, tuple[Stamp, list[Frame]]]:
        """What the cache file has; nothing if there is none or it is damaged."""
        try:
            with np.load(self.path, allow_pickle=False) as arrays:
                table = json.loads(arrays["table"].tobytes())
                stacks = {ndim: arrays[f"pixels{ndim}"] for ndim in (2, 3) if f"pixels{ndim}" in arrays}
            known = {}
            for name, size, modified, rows in table:
                frames = [Frame(n, stacks[ndim][row], highest=top, more=more) for n, ndim, row, top, more in rows]
                known[name] = ((size, modified), frames)
            # By hand: most file systems no longer note when a file was read.
            status = self.path.stat()
            os.utime(self.path, ns=(time.time_ns(), status.st_mtime_ns))
        except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile):
            return {}
        return known


def make_room(path: Path, size: int) -> None:
    """Delete cache files beside `path`, the least recently used first, until `size` bytes more fit."""
    others = [other for other in path.parent.iterdir() if _NAME.fullmatch(other.name) and other != path]
    others.sort(key=lambda other: other.stat().st_atime_ns)
    total = sum(other.stat().st_size for other in others)
    while others and total + size > MAX_BYTES:
        oldest = others.pop(0)
        total -= oldest.stat().st_size
        oldest.unlink()
