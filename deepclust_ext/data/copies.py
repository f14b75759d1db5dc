"""Files with the same bytes: by size first, then by hash."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from deepclust_ext.data.pool import in_order

_BLOCK = 2**20


def identical_files(root: Path, names: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs (first, copy) of files that have the same bytes; a name that is no file is left out.

    Only files of one size are read.

    Parameters
    ----------
    root : Path
        The folder.
    names : sequence of str
        Paths in it.

    Returns
    -------
    pairs : list of (int, int)
        Indices of `names`, by the copy.
    """
    sizes: dict[int, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        path = root / name
        if path.is_file():
            sizes[path.stat().st_size].append(index)
    asked = sorted(index for same in sizes.values() if len(same) > 1 for index in same)
    first: dict[str, int] = {}
    pairs = []
    for index, digest in zip(asked, in_order(lambda each: _digest(root / names[each]), asked), strict=True):
        if digest is not None and first.setdefault(digest, index) != index:
            pairs.append((first[digest], index))
    return pairs


def _digest(path: Path) -> str | None:
    """SHA-256 of a file; None if it cannot be read any more."""
    digest = hashlib.sha256()
    try:
        with open(os.fspath(path), "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()
