"""Files of embeddings: `.npy` and `.npz`, mapped where the file allows it, and parquet."""

from __future__ import annotations

import contextlib
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepclust_ext._optional import require
from deepclust_ext.data.arrays import to_images, to_labels
from deepclust_ext.data.embeddings import EmbeddingData, to_embeddings
from deepclust_ext.data.images import ImageData
from deepclust_ext.data.npz import open_archive, read_member

# What a table may call them.
COLUMNS, PATHS, CLASSES = ("embeddings", "embedding"), ("paths", "path"), ("y", "label", "labels")
# Of an entry of a zip file, before its name: the lengths of the name and of what follows it stand at the end.
_LOCAL_HEADER = 30


def load_npy(path: Path) -> EmbeddingData | ImageData:
    """Map an `.npy` file: embeddings if its array is (N, d), images if it has three or four dimensions.

    Raises
    ------
    ValueError
        If the file cannot be read as an array, or the array is neither.
    """
    try:
        # Copy on write: torch wants memory that it may write to, and the file stays as it is.
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"load_items: 'data' must be a readable .npy file, got {str(path)!r}: {error}") from error
    if array.ndim != 2:
        return ImageData(to_images(array, arg=path.name), source=path.name)
    return EmbeddingData(to_embeddings(array, arg=path.name), source=path.name)


def load_archive(path: Path) -> EmbeddingData:
    """Read an `.npz` archive with `embeddings` (N, d), and `paths` (N,) and `y` (N,) if it has them.

    The embeddings are mapped, not read, where the archive is not compressed (`np.savez`) and its entry begins at a
    multiple of its numbers' size, as a first one does. Pickled objects are never read.

    Raises
    ------
    ValueError
        If an array cannot be read, or is of another shape or kind.
    """
    with open_archive(path) as archive:
        array = _mapped(path, "embeddings")
        if array is None:
            array = read_member(archive, path, "embeddings")
        rows = to_embeddings(array, arg=f"{path.name}[embeddings]")
        labels = names = None
        if "y" in archive.files:
            labels = to_labels(read_member(archive, path, "y"), len(rows), arg=f"{path.name}[y]")
        if "paths" in archive.files:
            names = _names(read_member(archive, path, "paths").tolist(), len(rows), f"{path.name}[paths]")
    return EmbeddingData(rows, labels, names or (), source=path.name)


def load_parquet(path: Path) -> EmbeddingData:
    """Read a parquet file: a column `embeddings` of lists, or a column of numbers a dimension; `path` and `y` beside.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    ValueError
        If there are no such columns, or the lists differ in length.
    """
    arrow: Any = require("pyarrow", "parquet")
    try:
        table = require("pyarrow.parquet", "parquet").read_table(path)
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"load_items: 'data' must be a readable parquet file, got {str(path)!r}: {error}") from error
    columns = {name: table.column(name).combine_chunks() for name in dict.fromkeys(table.column_names)}
    nested = next((name for name in COLUMNS if name in columns), None)
    if nested is not None:
        array = _of_lists(columns[nested], path, nested)
    else:
        flat = [column for column in columns.values() if arrow.types.is_floating(column.type)]
        if not flat:
            raise ValueError(
                f"load_items: {path.name!r} must have a column 'embeddings' of lists, or a column of floating-point "
                f"numbers for each dimension, got the columns: {', '.join(columns) or 'none'}"
            )
        array = np.stack([column.to_numpy(zero_copy_only=False) for column in flat], axis=1)
    rows = to_embeddings(array, arg=path.name)
    classes = next((columns[name] for name in CLASSES if name in columns and name != nested), None)
    paths = next((columns[name] for name in PATHS if name in columns), None)
    return EmbeddingData(
        rows,
        None if classes is None else to_labels(np.array(classes.to_pylist(), dtype=object), len(rows), arg="y"),
        () if paths is None else _names(paths.to_pylist(), len(rows), f"{path.name}[paths]"),
        source=path.name,
    )


def _of_lists(column: Any, path: Path, name: str) -> NDArray[Any]:
    """A column of lists of numbers as an array (N, d)."""
    flat, n = column.flatten().to_numpy(zero_copy_only=False), len(column)
    if column.null_count or n == 0 or len(flat) % n or len(set(column.value_lengths().to_pylist())) > 1:
        raise ValueError(f"load_items: {name!r} in {path.name!r} must hold lists of one length, one a row")
    return np.asarray(flat).reshape(n, -1)


def _names(values: list[Any], n: int, arg: str) -> tuple[str, ...]:
    """Paths as text."""
    names = tuple(
        value.decode(errors="surrogateescape") if isinstance(value, bytes) else str(value) for value in values
    )
    if len(names) != n:
        raise ValueError(f"load_items: '{arg}' must hold one path for each of {n} embeddings, got {len(names)}")
    return names


def _mapped(path: Path, key: str) -> NDArray[Any] | None:
    """An entry of the archive as memory of the file; None where it is compressed or not aligned."""
    with contextlib.suppress(OSError, KeyError, ValueError, struct.error, zipfile.BadZipFile):
        with zipfile.ZipFile(path) as archive:
            entry = archive.getinfo(f"{key}.npy")
        if entry.compress_type != zipfile.ZIP_STORED:
            return None
        with path.open("rb") as file:
            file.seek(entry.header_offset)
            header = file.read(_LOCAL_HEADER)
            file.seek(sum(struct.unpack("<HH", header[26:30])), 1)
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
            start = file.tell()
        if dtype.hasobject or start % dtype.alignment or 0 in shape:
            return None
        return np.memmap(path, dtype, "c", start, shape, "F" if fortran else "C")
    return None
