"""The folder of an export: one labelling at a time, and nothing in it is deleted but what an export wrote."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from deepclust_ext.runs import RunError, atomic_writer
from deepclust_ext.runs.marker import MARKER, mark_by_folder

# File systems round times of modification, up to two seconds.
ROUNDING = 2.0

# Of each path in an export: sizes and times of modification of the files that were written there.
Listing = dict[str, list[tuple[int, float]]]


class ExportFolder:
    """A folder that is written aside and swapped in whole.

    What exports write is listed beforehand in the file `.NAME.exported` beside the folder, so that one which was
    killed half-way is known as well.

    Parameters
    ----------
    path : Path
        The folder. `.NAME.new` and `.NAME.old` beside it are used on the way; one writer at a time is assumed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.new, self.old, self.listing = (path.with_name(f".{path.name}.{end}") for end in ("new", "old", "exported"))

    def check(self) -> None:
        """Raise a RunError if the folder, or what is left of a swap that was cut short, holds anything of others."""
        listing = self._read()
        _check_own(self.path, listing, unchanged=True)
        for folder in (self.new, self.old):
            _check_own(folder, listing, unchanged=False)

    def replace(self, files: Mapping[str, Path], write: Callable[[Path, Path], object]) -> None:
        """Write the files and put them in the place of those that an earlier export wrote.

        Parameters
        ----------
        files : mapping of str to Path
            The originals by their paths in the folder.
        write : callable
            Writes one file: takes the original and the path.
        """
        self.check()
        before = self._read()
        _remove(self.new, before)
        self._back()
        _remove(self.old, before)
        new: Listing = {name: [_facts(original)] for name, original in files.items()}
        both = {name: before.get(name, []) + new.get(name, []) for name in before.keys() | new.keys()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._list(both)
        try:
            self.new.mkdir()
            mark_by_folder(self.new)
            for name, original in files.items():
                path = self.new / name
                path.parent.mkdir(parents=True, exist_ok=True)
                write(original, path)
            if self.path.exists():
                os.rename(self.path, self.old)
            os.rename(self.new, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                self._back()
                _remove(self.new, both)
                self._list(before)
            raise
        _remove(self.old, both)
        self._list(new)

    def _back(self) -> None:
        """Undo the first half of a swap that was cut short."""
        if self.old.exists() and not self.path.exists():
            os.rename(self.old, self.path)

    def _read(self) -> Listing:
        """What exports wrote, or were about to."""
        if not self.listing.exists():
            return {}
        lines = self.listing.read_text(encoding="utf-8").splitlines()
        return {name: [(int(size), float(time)) for size, time in facts] for name, facts in map(json.loads, lines)}

    def _list(self, listing: Listing) -> None:
        """Write the listing; JSON escapes names that are no text."""
        with atomic_writer(self.listing) as file:
            file.writelines((json.dumps(entry) + "\n").encode() for entry in listing.items())


def _facts(path: Path) -> tuple[int, float]:
    """Size and time of modification, which a copy takes over."""
    status = path.stat()
    return status.st_size, status.st_mtime


def _check_own(folder: Path, listing: Listing, *, unchanged: bool) -> None:
    """Refuse a folder with anything that no export wrote, or, if asked to look, that was changed since."""
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise RunError(f"export: {str(folder)!r} must be a folder or not be there; move it away")
    folders = _folders_of(listing) | {MARKER}
    for inner, inside, names in os.walk(folder):
        for name in (*inside, *names):
            path = Path(inner, name)
            known = path.relative_to(folder).as_posix()
            if known in folders and not path.is_symlink():
                continue
            if known not in listing or (unchanged and not _is_unchanged(path, listing[known])):
                raise RunError(
                    f"export: {str(folder)!r} must hold nothing but an earlier export, got {known!r}, which is not "
                    "of it or was changed since; move the folder away, or choose another --out"
                )


def _is_unchanged(path: Path, known: list[tuple[int, float]]) -> bool:
    """Whether a file is as an export wrote it, as far as size and time tell."""
    if path.is_symlink():
        return True
    size, time = _facts(path)
    return any(size == old_size and abs(time - old_time) <= ROUNDING for old_size, old_time in known)


def _remove(folder: Path, listing: Listing) -> None:
    """Delete what an export wrote, and nothing else."""
    if not folder.is_dir():
        return
    for name in listing:
        (folder / name).unlink(missing_ok=True)
    for inner in sorted(_folders_of(listing), reverse=True):
        if (folder / inner).is_dir():
            (folder / inner).rmdir()
    if (folder / MARKER).is_dir():
        (folder / MARKER).rmdir()
    folder.rmdir()


def _folders_of(listing: Listing) -> set[str]:
    """The folders in which the files of a listing lie."""
    return {parent.as_posix() for name in listing for parent in PurePosixPath(name).parents} - {"."}
