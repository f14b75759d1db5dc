"""The folder of an export: one labelling at a time, and nothing in it is deleted but what an export wrote."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from deepclust_ext.runs import RunError
from deepclust_ext.runs.marker import MARKER, mark

# Every file that the export is about to write, so that one which was killed half-way can be cleared as well.
LISTING = ".exported.jsonl"
# File systems round times of modification, up to two seconds.
ROUNDING = 2.0

Entry = list[str | int | float]


class ExportFolder:
    """A folder that is written aside and swapped in whole.

    Parameters
    ----------
    path : Path
        The folder. `.NAME.new` and `.NAME.old` beside it are used on the way; one writer at a time is assumed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.new, self.old = (path.with_name(f".{path.name}.{age}") for age in ("new", "old"))

    def check(self) -> None:
        """Raise a RunError if the folder, or what is left of a swap that was cut short, holds anything of others."""
        _check_own(self.path, unchanged=True)
        for folder in (self.new, self.old):
            _check_own(folder, unchanged=False)

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
        _remove(self.new)
        self._back()
        _remove(self.old)
        try:
            self.new.mkdir(parents=True)
            mark(self.new)
            with (self.new / LISTING).open("w", encoding="utf-8", errors="surrogateescape") as file:
                file.writelines(json.dumps(_entry(name, original)) + "\n" for name, original in files.items())
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
                _remove(self.new)
            raise
        _remove(self.old)

    def _back(self) -> None:
        """Undo the first half of a swap that was cut short."""
        if self.old.exists() and not self.path.exists():
            os.rename(self.old, self.path)


def _entry(name: str, original: Path) -> Entry:
    """A line of the listing: name, size and time of modification, which a copy takes over."""
    status = original.stat()
    return [name, status.st_size, status.st_mtime]


def _listing(folder: Path) -> dict[str, Entry]:
    """What an export wrote into the folder, or was about to."""
    try:
        lines = (folder / LISTING).read_bytes().splitlines()
    except FileNotFoundError:
        return {}
    entries = {}
    for line in lines:
        # The last may be cut short; what it names was not written yet.
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            entries[str(entry[0])] = entry
    return entries


def _check_own(folder: Path, *, unchanged: bool) -> None:
    """Refuse a folder with anything that no export wrote, or, if asked to look, that was changed since."""
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise RunError(f"export: {str(folder)!r} must be a folder or not be there; move it away")
    listing = _listing(folder)
    folders = _folders_of(listing)
    for inner, inside, names in os.walk(folder):
        for name in (*inside, *names):
            path = Path(inner, name)
            known = path.relative_to(folder).as_posix()
            if known in (MARKER, LISTING) or (known in folders and not path.is_symlink()):
                continue
            if known not in listing or (unchanged and not _is_unchanged(path, listing[known])):
                raise RunError(
                    f"export: {str(folder)!r} must hold nothing but an earlier export, got {known!r}, which is not "
                    "of it or was changed since; move the folder away, or choose another --out"
                )


def _is_unchanged(path: Path, entry: Entry) -> bool:
    """Whether a file is as the export wrote it, as far as size and time tell."""
    if path.is_symlink():
        return True
    status = path.stat()
    return status.st_size == entry[1] and abs(status.st_mtime - float(entry[2])) <= ROUNDING


def _remove(folder: Path) -> None:
    """Delete what an export wrote, and nothing else."""
    if not folder.is_dir():
        return
    listing = _listing(folder)
    for name in listing:
        (folder / name).unlink(missing_ok=True)
    for inner in sorted(_folders_of(listing), reverse=True):
        if (folder / inner).is_dir():
            (folder / inner).rmdir()
    for name in (LISTING, MARKER):
        (folder / name).unlink(missing_ok=True)
    folder.rmdir()


def _folders_of(listing: Mapping[str, Entry]) -> set[str]:
    """The folders in which the files of a listing lie."""
    return {parent.as_posix() for name in listing for parent in PurePosixPath(name).parents} - {"."}
