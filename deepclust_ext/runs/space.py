"""A full disk ends in one sentence that names the file."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from .errors import NoSpaceError

# No space on the disk, in the user's quota, or for files as large as this.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextlib.contextmanager
def needs_space(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn the system's error about a full disk within the block into a NoSpaceError that names `path`.

    Examples
    --------
    >>> with needs_space("labels.csv"):
    ...     raise OSError(errno.ENOSPC, "No space left on device")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    deepclust_ext.runs.errors.NoSpaceError: no space left to write 'labels.csv' (No space left on device); free some...
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise NoSpaceError(
            f"no space left to write {os.fspath(path)!r} ({error.strerror}); free some, then run the same again: "
            "what was there before is whole",
            error.errno,
        ) from error
