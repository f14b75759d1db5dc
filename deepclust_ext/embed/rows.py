"""Embeddings with what they were made from, so that only files that are new or have changed are embedded again."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepclust_ext.data.embedding_files import load_archive
from deepclust_ext.data.embeddings import EmbeddingData
from deepclust_ext.runs.atomic import atomic_writer
from deepclust_ext.runs.space import needs_space

# Size and time of modification; for frames of a file that were taken apart, how many there are, else 0.
Stamp = tuple[int, int]
# That of a row that is not to be used again.
NEVER = (-1, -1)
# The rows of one file: a name and an embedding each.
FileRows = list[tuple[str, NDArray[Any]]]

# Before each part of a journal: a sign, the lengths of its table and of its rows, the checksum of both.
_PART = struct.Struct("<4sQQI")
_SIGN = b"DCE1"


@dataclass(frozen=True, eq=False, repr=False)
class EmbeddedImages(EmbeddingData):
    """Embeddings that `embed` made.

    Parameters
    ----------
    stamps : ndarray of int64, shape (N, 3), optional
        Size and time of modification of each row's file, and how many frames it was taken apart into, or 0.
    network : str
        `Backbone.identity` of what made them.
    n_new : int
        How many were made just now, and not known from before.
    seconds : float
        What that took.
    """

    stamps: NDArray[np.int64] | None = None
    network: str = ""
    n_new: int = 0
    seconds: float = 0.0

    @property
    def summary(self) -> str:
        """How many embeddings there are, how many of them are new, and how fast they came.

        Examples
        --------
        >>> import torch
        >>> EmbeddedImages(torch.zeros(5, 8), n_new=2, seconds=0.5).summary
        '5 embeddings of 8 dimensions, 2 of them new, 4.0 images per second'
        """
        rate = f", {self.n_new / self.seconds:.1f} images per second" if self.n_new and self.seconds else ""
        return f"{len(self)} embeddings of {self.image_shape[0]} dimensions, {self.n_new} of them new{rate}"


def write_embedded(path: Path, images: EmbeddedImages) -> None:
    """Write an `.npz` file that `load_items` reads, and `load_embedded` with what the rows were made from."""
    arrays: dict[str, Any] = {"embeddings": images.embeddings.numpy(), "paths": np.array(images.names)}
    arrays |= {"stamps": images.stamps, "network": np.array(images.network)}
    if images.labels is not None:
        arrays["y"] = images.labels.numpy()
    with atomic_writer(path) as file:
        np.savez(file, **arrays)


def load_embedded(path: str | os.PathLike[str]) -> EmbeddedImages:
    """Read a file of `write_embedded`; one of other embeddings has neither stamps nor a network.

    Raises
    ------
    ValueError
        If it is no archive of embeddings.
    """
    found = load_archive(Path(path))
    with np.load(path, allow_pickle=False) as arrays:
        stamps = arrays.get("stamps")
        network = str(arrays["network"]) if "network" in arrays else ""
    fields = found.embeddings, found.labels, found.names, found.skipped, found.source
    return EmbeddedImages(*fields, stamps=stamps, network=network)


class Known:
    """Rows of files that a network embedded before.

    Parameters
    ----------
    network : str
        The network's identity: others' rows are not taken.
    dtype : dtype
        Of the rows.
    """

    def __init__(self, network: str, dtype: Any) -> None:
        self.network, self.dtype = network, np.dtype(dtype)
        self._files: dict[str, tuple[Stamp, FileRows]] = {}

    def find(self, file: str, stamp: Stamp) -> FileRows | None:
        """The rows of a file, if it is as it was."""
        known, rows = self._files.get(file, (NEVER, []))
        return rows if known == stamp and stamp != NEVER else None

    def add(self, file: str, stamp: Stamp, rows: FileRows) -> None:
        """Add a file."""
        self._files[file] = (stamp, rows)

    def add_archive(self, path: Path) -> None:
        """Add what a file of `write_embedded` has, if it is there, whole, and of this network."""
        with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            found = load_embedded(path)
            if found.network != self.network or found.stamps is None or len(found.stamps) != len(found):
                return
            rows = found.embeddings.numpy()
            if rows.dtype != self.dtype:
                return
            files: dict[str, tuple[tuple[int, int, int], FileRows]] = {}
            for name, row, (size, modified, frames) in zip(found.names, rows, found.stamps.tolist(), strict=True):
                file = name.rpartition("#")[0] if frames else name
                files.setdefault(file, ((size, modified, frames), []))[1].append((name, row))
            for file, ((size, modified, frames), own) in files.items():
                if len(own) == (frames or 1):
                    self.add(file, (size, modified), own)


class RowJournal:
    """Rows as they are made, appended to a file: what a process that is killed has made is not lost.

    Parameters
    ----------
    path : Path
        The file. What is in it already, of the same network, goes to `known`; what is damaged at its end is cut off.
    known : Known
        Gives the network and the dtype.
    """

    def __init__(self, path: Path, known: Known) -> None:
        self.path = path
        whole = self._read(known)
        with needs_space(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("r+b" if whole else "wb")
            self._file.seek(whole)
            self._file.truncate()
            if not whole:
                self._append(json.dumps([known.network, str(known.dtype)]).encode(), b"")

    def append(self, files: Sequence[tuple[str, Stamp, FileRows]]) -> None:
        """Add files; one call costs one write."""
        if files:
            table = [[file, *stamp, [name for name, _ in rows]] for file, stamp, rows in files]
            rows = np.stack([row for _, _, own in files for _, row in own])
            with needs_space(self.path):
                self._append(json.dumps(table).encode(), rows.tobytes())

    def close(self) -> None:
        """Close the file, which stays."""
        self._file.close()

    def _append(self, table: bytes, rows: bytes) -> None:
        self._file.write(_PART.pack(_SIGN, len(table), len(rows), zlib.crc32(rows, zlib.crc32(table))))
        self._file.write(table)
        self._file.write(rows)
        self._file.flush()

    def _read(self, known: Known) -> int:
        """Add the file's parts to what is known; how many bytes of it are whole and of this network."""
        whole = 0
        with contextlib.suppress(OSError, ValueError), self.path.open("rb") as file:
            for number, (table, rows) in enumerate(_parts(file)):
                if number == 0 and json.loads(table) != [known.network, str(known.dtype)]:
                    return 0
                if number:
                    _add_part(known, json.loads(table), rows)
                whole = file.tell()
        return whole


def _parts(file: Any) -> Iterable[tuple[bytes, bytes]]:
    """The parts of a journal up to the first that is cut short or damaged."""
    while True:
        head = file.read(_PART.size)
        if len(head) < _PART.size:
            return
        sign, n_table, n_rows, checksum = _PART.unpack(head)
        left = os.fstat(file.fileno()).st_size - file.tell()
        if sign != _SIGN or n_table + n_rows > left:
            return
        table, rows = file.read(n_table), file.read(n_rows)
        if zlib.crc32(rows, zlib.crc32(table)) != checksum:
            return
        yield table, rows


def _add_part(known: Known, table: list[Any], content: bytes) -> None:
    """Add one part's files."""
    n = sum(len(names) for *_, names in table)
    rows = iter(np.frombuffer(content, known.dtype).reshape(n, -1))
    for file, size, modified, names in table:
        known.add(file, (size, modified), [(name, next(rows)) for name in names])
