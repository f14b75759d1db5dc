"""CSV files, written whole or not at all: labels.csv and whatever else has rows."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .atomic import atomic_writer

# Rows of labels.csv that are made at a time.
_LINES = 65_536
# What would end a cell or a line.
_SPECIAL = re.compile('[,"\r\n]').search


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Return a CSV file's content; file names that are no UTF-8 keep their bytes.

    Examples
    --------
    >>> csv_bytes(("path", "reason"), [("a.png", "empty")])
    b'path,reason\\na.png,empty\\n'
    """
    lines = (",".join([_cell(value) for value in row]) + "\n" for row in (header, *rows))
    # A file name need not be valid UTF-8; surrogateescape gives back the very bytes the system has.
    return "".join(lines).encode("utf-8", errors="surrogateescape")


def _cell(value: Any) -> str:
    """Quote text that would end a cell or a line.

    Not by the csv module: some releases of Python 3.10 to 3.12 leave a carriage return unquoted.
    """
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if _SPECIAL(text) else text


def write_csv(path: str | os.PathLike[str], header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file atomically."""
    with atomic_writer(path) as file:
        file.write(csv_bytes(header, rows))


def labels_csv(
    names: Sequence[str],
    labels: npt.NDArray[np.int64],
    confidence: npt.NDArray[np.floating[Any]],
    columns: Mapping[str, npt.NDArray[Any]] | None = None,
) -> bytes:
    """Return the content of labels.csv: path or index, cluster, how sure it is, and what else is known of each image.

    Parameters
    ----------
    names : sequence of str
        N names, paths relative to the data folder or decimal indices.
    labels : ndarray of int64, shape (N,)
        The cluster of each image, -1 for none.
    confidence : ndarray of float, shape (N,)
        In [0, 1].
    columns : mapping of str to ndarray, shape (N,), optional
        More columns, of whole numbers, in which -1 is an empty cell, or of others, in which NaN is.

    Returns
    -------
    content : bytes
    """
    return b"".join(labels_lines(names, labels, confidence, columns))


def labels_lines(
    names: Sequence[str],
    labels: npt.NDArray[np.int64],
    confidence: npt.NDArray[np.floating[Any]],
    columns: Mapping[str, npt.NDArray[Any]] | None = None,
) -> Iterator[bytes]:
    """Yield the content of labels.csv in parts: as text, millions of rows take more memory than anything else."""
    columns = columns or {}
    yield csv_bytes(("path", "cluster", "confidence", *columns), ())
    for begin in range(0, len(names), _LINES):
        part = slice(begin, begin + _LINES)
        # Numbers need no quotes: with 100,000 images that is most of the time.
        shares = [f"{share:.6f}" for share in confidence[part].tolist()]
        others = [_entries(column[part]) for column in columns.values()]
        cells = zip(map(_cell, names[part]), map(str, labels[part].tolist()), shares, *others, strict=True)
        yield "".join([",".join(row) + "\n" for row in cells]).encode("utf-8", errors="surrogateescape")


def _entries(values: npt.NDArray[Any]) -> list[str]:
    """Numbers as cells: whole ones, empty below 0, or six digits, empty for NaN."""
    if values.dtype.kind in "iu":
        return ["" if value < 0 else str(value) for value in values.tolist()]
    return ["" if value != value else f"{value:.6g}" for value in values.tolist()]
