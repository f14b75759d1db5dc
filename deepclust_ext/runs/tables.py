"""CSV files, written whole or not at all: labels.csv and whatever else has rows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .atomic import atomic_writer


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Return a CSV file's content; file names that are no UTF-8 keep their bytes.

    Examples
    --------
    >>> csv_bytes(("path", "reason"), [("a.png", "empty")])
    b'path,reason\\na.png,empty\\n'
    """
    lines = (",".join(map(_cell, row)) + "\n" for row in (header, *rows))
    # A file name need not be valid UTF-8; surrogateescape gives back the very bytes the system has.
    return "".join(lines).encode("utf-8", errors="surrogateescape")


def _cell(value: Any) -> str:
    """Quote what would end a cell or a line.

    Not by the csv module: some releases of Python 3.10 to 3.12 leave a carriage return unquoted.
    """
    text = "" if value is None else str(value)
    return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in ',"\r\n') else text


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
    more = [map(_entry, values.tolist()) for values in (columns or {}).values()]
    shares = (f"{share:.6f}" for share in confidence.tolist())
    rows = zip(names, labels.tolist(), shares, *more, strict=True)
    return csv_bytes(("path", "cluster", "confidence", *(columns or {})), rows)


def _entry(value: float) -> str | None:
    """A number for a cell: six digits, or None for an empty one."""
    if isinstance(value, int):
        return None if value < 0 else str(value)
    return None if value != value else f"{value:.6g}"
