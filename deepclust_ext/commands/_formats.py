"""Labels in other formats beside labels.csv: parquet, and JSON that FiftyOne reads."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from deepclust_ext._optional import require
from deepclust_ext.commands._parser import UsageError
from deepclust_ext.runs import RunError, atomic_writer


@dataclass(frozen=True)
class Labelled:
    """What is written.

    Attributes
    ----------
    names : sequence of str
        N names, paths relative to the folder of the images or decimal indices.
    labels : ndarray of int64, shape (N,)
        Clusters.
    confidence : ndarray of float, shape (N,)
        In [0, 1].
    embeddings : ndarray of float32, shape (N, d), optional
        For parquet.
    """

    names: Sequence[str]
    labels: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.floating[Any]]
    embeddings: npt.NDArray[np.float32] | None = None


def parse_formats(text: str | None) -> tuple[str, ...]:
    """Turn "parquet,fiftyone" into names, and see that what writes them is installed.

    Raises
    ------
    UsageError
        If a name is unknown.
    ImportError
        If pyarrow is missing.

    Examples
    --------
    >>> parse_formats("fiftyone")
    ('fiftyone',)
    """
    found = tuple(dict.fromkeys(word.strip() for word in text.split(","))) if text else ()
    for name in found:
        if name not in FORMATS:
            raise UsageError(f"--format must be of {', '.join(FORMATS)}, separated by commas, got {text!r}")
    if "parquet" in found:
        require("pyarrow.parquet", "parquet")
    return found


def write_formats(formats: Sequence[str], table: Path, found: Labelled) -> list[Path]:
    """Write the labels beside a CSV file, in files of its name.

    Parameters
    ----------
    formats : sequence of str
        Of `FORMATS`.
    table : Path
        The CSV file, such as RUN/labels.csv: parquet goes to RUN/labels.parquet.
    found : Labelled
        The labels.

    Returns
    -------
    paths : list of Path

    Raises
    ------
    RunError
        If two images have one name for FiftyOne, which leaves the ends of file names out.
    """
    paths = []
    for name in formats:
        end, content = FORMATS[name]
        path = table.with_name(table.stem + end)
        written = content(found)
        with atomic_writer(path) as file:
            file.write(written)
        paths.append(path)
    return paths


def _parquet(found: Labelled) -> bytes:
    """Columns path, cluster, confidence and, where there are any, embeddings: lists of float32."""
    arrow: Any = require("pyarrow", "parquet")
    columns: dict[str, Any] = {
        "path": arrow.array([_text(name) for name in found.names], arrow.string()),
        "cluster": arrow.array(found.labels, arrow.int64()),
        "confidence": arrow.array(np.asarray(found.confidence, dtype=np.float32)),
    }
    if found.embeddings is not None:
        flat = np.ascontiguousarray(found.embeddings, dtype=np.float32)
        columns["embeddings"] = arrow.FixedSizeListArray.from_arrays(arrow.array(flat.reshape(-1)), flat.shape[1])
    out = io.BytesIO()
    require("pyarrow.parquet", "parquet").write_table(arrow.table(columns), out)
    return out.getvalue()


def _fiftyone(found: Labelled) -> bytes:
    """The labels of a FiftyOneImageClassificationDataset: images by paths without the end, clusters as classes."""
    classes = [str(value) for value in np.unique(found.labels).tolist()]
    place = {name: number for number, name in enumerate(classes)}
    labels: dict[str, int] = {}
    for name, label in zip(found.names, found.labels.tolist(), strict=True):
        path = PurePosixPath(_text(name))
        key = str(path.with_suffix("")) if path.suffix else str(path)
        if key in labels:
            raise RunError(
                f"--format fiftyone: two images have the path {key!r} without its end, by which FiftyOne knows them; "
                "rename one"
            )
        labels[key] = place[str(label)]
    return (json.dumps({"classes": classes, "labels": labels}, indent=1, ensure_ascii=False) + "\n").encode()


def _text(name: str) -> str:
    """A name as text: bytes that are no UTF-8 are written as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


# The end of the file's name, and what makes its content.
FORMATS: dict[str, tuple[str, Callable[[Labelled], bytes]]] = {
    "parquet": (".parquet", _parquet),
    "fiftyone": (".fiftyone.json", _fiftyone),
}
