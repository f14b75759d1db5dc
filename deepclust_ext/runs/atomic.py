"""Write files so that a reader or a crash sees the old content or the new, nothing between."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .._warnings import DeepclustWarning
from .space import needs_space

# File systems, by device, of which was said that they cannot flush folders.
_said: set[int] = set()


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to disk: a rename is durable only after this.

    Warns
    -----
    DeepclustWarning
        Once per file system, if it cannot: network file systems may not.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        device = folder.stat().st_dev
        if device not in _said:
            _said.add(device)
            warnings.warn(
                f"runs: the file system of {str(folder)!r} cannot flush folders ({error.strerror}): after a power cut, "
                "not after a kill, the newest files may be missing",
                DeepclustWarning,
                stacklevel=3,
            )


@contextlib.contextmanager
def atomic_writer(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path` for writing; it takes the place of `path` when the block ends.

    The temporary file is flushed and synced before `os.replace`, and the folder after it, so that neither a
    killed process nor a power cut leaves a half-written file under the final name. If the block raises,
    `path` is untouched, the temporary file is removed and the exception goes on.

    Parameters
    ----------
    path : str or path
        The file to write or replace. Its folder must exist, and one writer at a time is assumed.

    Yields
    ------
    file : binary file
        Open for writing.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> target = pathlib.Path(tempfile.mkdtemp()) / "metrics.json"
    >>> with atomic_writer(target) as file:
    ...     _ = file.write(b"{}")
    >>> target.read_text()
    '{}'
    """
    path = Path(path)
    # A fixed name: what a killed process left behind is overwritten by the next write instead of piling up.
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with needs_space(path), temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in one step, as UTF-8."""
    with atomic_writer(path) as file:
        file.write(text.encode("utf-8"))
