"""Images in tar archives, as webdataset has them: listed and read where they are, nothing is unpacked."""

from __future__ import annotations

import io
import json
import os
import posixpath
import tarfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from deepclust_ext._warnings import DeepclustWarning
from deepclust_ext.data.arrays import to_labels
from deepclust_ext.data.reading import Frame, Reading, read_picture
from deepclust_ext.data.walk import EXTENSIONS

SUFFIX = ".tar"
# Beside an image, in this order: a class as text, or JSON that is one or has one under such a key.
CLASS, RECORD, KEYS = ".cls", ".json", ("label", "y", "cls")
# What holds a class is not longer.
_MOST = 1 << 20
# What a file that is there twice is called.
_AGAIN = "another file of this name comes later in the archive, and is taken"


@dataclass(frozen=True)
class Member:
    """Where a file lies in an archive."""

    shard: Path
    offset: int
    size: int

    def open(self) -> io.BufferedReader:
        """The file, as if it were by itself."""
        return io.BufferedReader(_Window(self))


class ShardFiles:
    """The images of one archive, or of the archives of a folder one after another.

    Links, devices and names that lead out of the archive are left out with a reason; so is what follows damage. Hidden
    files, and files beside an image that share its name up to the first dot, are left alone.

    Parameters
    ----------
    path : Path
        The archive, or the folder.
    shards : sequence of str, optional
        Of a folder, its archives as paths in it, in order; images are then called SHARD/NAME.

    Raises
    ------
    ValueError
        If an archive cannot be read at all.
    """

    def __init__(self, path: Path, shards: Sequence[str] = (), skipped: Sequence[tuple[str, str]] = ()) -> None:
        self.path, self.skipped = path, list(skipped)
        self._members: dict[str, Member] = {}
        self._beside: dict[str, dict[str, Member]] = {}
        self._prefixes: dict[str, str] = {}
        for shard in shards or ("",):
            self._list(path / shard if shard else path, f"{shard}/" if shard else "")
        self.files = list(self._members)

    def read(self, name: str, reading: Reading, reserve: Any) -> list[Frame]:
        """Decode one image; see `read_file`."""
        try:
            file = self._members[name].open()
        except (OSError, KeyError) as error:
            return [Frame(name, reason=f"it cannot be found in the archive any more: {error}")]
        return read_picture(file, name, reading, reserve)

    def where(self, name: str) -> Path:
        """The file that changes if the image does."""
        return self._members[name].shard

    def inner(self, name: str) -> str:
        """A frame's path in its archive."""
        return name[len(self._prefixes.get(self._file(name), "")) :]

    def labels(self, names: Sequence[str]) -> Tensor | None:
        """The classes of frames by the files beside their images; None where there are none, or not all have one."""
        found = [self._class(self._file(name)) for name in names]
        missing = [name for name, value in zip(names, found, strict=True) if value is None]
        if not missing:
            whole = all(isinstance(value, int) for value in found)
            return to_labels(found if whole else [str(value) for value in found], len(found), arg=CLASS)
        if len(missing) < len(names):
            warnings.warn(
                f"load_data: {len(missing)} of {len(names)} images in {str(self.path)!r} have no class in a {CLASS} or "
                f"{RECORD} file beside them, such as {missing[0]!r}; no classes are taken",
                DeepclustWarning,
                stacklevel=4,
            )
        return None

    def _file(self, name: str) -> str:
        """The file of a frame."""
        return name if name in self._members else name.rpartition("#")[0]

    def _class(self, file: str) -> int | str | None:
        """What stands beside an image: a whole number, or text."""
        beside = self._beside.get(_key(file), {})
        for end in (CLASS, RECORD):
            if end not in beside or beside[end].size > _MOST:
                continue
            with beside[end].open() as content:
                text = content.read().decode("utf-8", "replace").strip()
            value = _of_record(text) if end == RECORD else text
            if isinstance(value, str) and value.isdecimal():
                value = int(value)
            if isinstance(value, int) or value:
                return value
        return None

    def _list(self, shard: Path, prefix: str) -> None:
        """Add the files of one archive."""
        found: dict[str, Member] = {}
        for name, member, reason in _entries(shard):
            if reason:
                self.skipped.append((f"{prefix}{name}" if name else shard.name, reason))
                continue
            if name in found and _extension(name) in EXTENSIONS:
                self.skipped.append((f"{prefix}{name}", _AGAIN))
                # In the place of the last, as if it had been unpacked.
                del found[name]
            assert member is not None
            found[name] = member
        images = [name for name in found if _extension(name) in EXTENSIONS]
        keys = {_key(name) for name in images}
        for name in images:
            self._members[f"{prefix}{name}"] = found[name]
            self._prefixes[f"{prefix}{name}"] = prefix
            self._beside.setdefault(f"{prefix}{_key(name)}", {})
        for name, member in found.items():
            extension = _extension(name)
            if extension in EXTENSIONS:
                continue
            if _key(name) in keys:
                self._beside[f"{prefix}{_key(name)}"][name[len(_key(name)) :].lower()] = member
            else:
                reason = f"not an image file (extension {extension or 'missing'})"
                self.skipped.append((f"{prefix}{name}", reason))


def _entries(shard: Path) -> Iterator[tuple[str, Member | None, str]]:
    """The regular files of an archive: name, place, and why one cannot be used; "" is the archive's own name."""
    size = shard.stat().st_size
    last = -1
    try:
        archive = tarfile.open(shard, "r:")  # noqa: SIM115 - closed below
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise ValueError(
            f"load_data: 'data' must be a readable .tar archive, not compressed, got {str(shard)!r}: {error}"
        ) from error
    with archive:
        while True:
            try:
                entry = archive.next()
            except (tarfile.TarError, OSError, EOFError, ValueError) as error:
                yield "", None, f"damaged from byte {archive.offset} on, and what follows is not read: {error}"
                return
            if entry is None:
                break
            name = posixpath.normpath(entry.name)
            if entry.size < 0 or entry.offset <= last:
                yield name, None, "damaged, and what follows in the archive is not read"
                return
            last = entry.offset
            if entry.isdir() or any(part.startswith(".") and part != ".." for part in name.split("/")):
                continue
            if name.startswith("/") or ".." in name.split("/"):
                yield name, None, "a path that leads out of the archive"
            elif not entry.isreg() or entry.issparse():
                yield name, None, "not a regular file in the archive, such as a link"
            elif entry.offset_data + entry.size > size:
                yield name, None, "cut off: the archive ends before it"
            else:
                yield name, Member(shard, entry.offset_data, entry.size), ""
        with shard.open("rb") as file:
            file.seek(archive.offset)
            end = file.read(tarfile.BLOCKSIZE)
        # tarfile takes a header that is none for the end.
        if end.count(0) < len(end):
            yield "", None, f"damaged from byte {archive.offset} on, and what follows is not read"


def _key(name: str) -> str:
    """What the files of one sample share: the path up to the first dot in the file's name."""
    folder, slash, file = name.rpartition("/")
    return f"{folder}{slash}{file.split('.', 1)[0]}"


def _extension(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _of_record(text: str) -> int | str | None:
    """The class in JSON: a whole number or text, alone or under a key."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict):
        value = next((value[key] for key in KEYS if key in value), None)
    return value if isinstance(value, (int, str)) and not isinstance(value, bool) else None


class _Window(io.RawIOBase):
    """A part of a file as a file: nothing of it is read before it is asked for."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        self.file, self.first, self.size, self.at = member.shard.open("rb", buffering=0), member.offset, member.size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self.size}[whence]
        if start + offset < 0:
            raise OSError("a place before the beginning of a file")
        self.at = start + offset
        return self.at

    def readinto(self, buffer: Any, /) -> int:
        self.file.seek(self.first + self.at)
        n = self.file.readinto(memoryview(buffer)[: max(0, self.size - self.at)]) or 0
        self.at += n
        return n

    def close(self) -> None:
        self.file.close()
        super().close()
