"""Checkpoints that survive a kill at any moment: the last two are kept, each with a SHA-256 beside it."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any, BinaryIO

import torch

from .._warnings import DeepclustWarning
from .atomic import atomic_writer, sync_folder
from .errors import CheckpointError
from .space import needs_space

CURRENT = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"

State = dict[str, Any]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def digest_path(path: Path) -> Path:
    """Where the digest of `path` is kept: the same name with `.sha256` added."""
    return path.with_name(path.name + ".sha256")


def _read_digests(path: Path) -> list[str]:
    """The digests a file may have; none when there is no digest file."""
    beside = digest_path(path)
    if not beside.exists():
        return []
    return [line.split()[0] for line in beside.read_text(errors="replace").splitlines() if line.strip()]


def _write_digests(path: Path, digests: list[str]) -> None:
    """Write the digest file of `path`, one `sha256sum` line for each digest that is right at this moment."""
    with atomic_writer(digest_path(path)) as file:
        file.write("".join(f"{digest}  {path.name}\n" for digest in digests).encode())


def _recorded_digest(path: Path) -> str:
    """The one digest recorded for `path`; a damaged file keeps its old one, so the damage still shows."""
    recorded = _read_digests(path)
    if len(recorded) == 1:
        return recorded[0]
    # None, or two because a save was cut short: ask the file.
    digest = file_digest(path)
    return recorded[0] if recorded and digest not in recorded else digest


def _replace_with_digest(source: Path, target: Path, digest: str) -> None:
    """Move `source` onto `target` so that the digest file always fits the one that is there."""
    _write_digests(target, [digest, *_read_digests(target)])
    os.replace(source, target)
    sync_folder(target.parent)
    _write_digests(target, [digest])


def _write_pending(state: State, path: Path) -> tuple[Path, Path, str]:
    """Write `state` beside `path`; returns the new file, `path` and the new file's digest."""
    pending = path.with_name(path.name + ".new")
    with atomic_writer(pending) as file:
        _save(state, file)
    return pending, path, file_digest(pending)


class _Watched:
    """A file that remembers why it could not be written: torch.save says of that nothing but a wrong position."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write to the file."""
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        """Flush the file."""
        self.file.flush()


def _save(state: State, file: BinaryIO) -> None:
    """torch.save; a failure to write is raised as what it was."""
    watched = _Watched(file)
    try:
        torch.save(state, watched)  # type: ignore[arg-type]
    except RuntimeError:
        if watched.error is not None:
            raise watched.error from None
        raise


def save_state(state: State, path: str | os.PathLike[str]) -> None:
    """Write one state dict to `path` atomically, with its SHA-256 beside it. A failed save raises.

    Parameters
    ----------
    state : dict
        Tensors, numbers, strings and containers of them: what `torch.load(weights_only=True)` accepts.
    path : str or path
        The file to write or replace.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace_with_digest(*_write_pending(state, path))


def load_state(path: str | os.PathLike[str]) -> State:
    """Read a file of `save_state`; tensors arrive on the CPU.

    Raises
    ------
    CheckpointError
        If the file is missing, does not have the digest recorded beside it, or cannot be read.

    Warns
    -----
    DeepclustWarning
        If there is no digest beside it, so that nobody can tell whether it was altered.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"load: there is no file {str(path)!r}")
    digests = _read_digests(path)
    if not digests:
        warnings.warn(
            f"load: {str(path)!r} has no .sha256 beside it and is read unverified",
            DeepclustWarning,
            stacklevel=2,
        )
    elif file_digest(path) not in digests:
        raise CheckpointError(
            f"load: {str(path)!r} is truncated or altered (its SHA-256 is not the one recorded beside it)"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"load: {str(path)!r} cannot be read as a checkpoint ({error})") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"load: {str(path)!r} holds a {type(state).__name__}, not a checkpoint")
    return state


class CheckpointStore:
    """The last two checkpoints of a run, `checkpoint.pt` and `checkpoint.previous.pt`.

    Whatever moment the process dies at, at least one of the two is whole, and a file that was truncated or
    altered later is recognised by the SHA-256 beside it.

    Parameters
    ----------
    folder : str or path
        An existing folder.

    Examples
    --------
    >>> import tempfile
    >>> store = CheckpointStore(tempfile.mkdtemp())
    >>> store.load() is None
    True
    >>> store.save({"epoch": 1})
    >>> store.load()
    {'epoch': 1}
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.current = self.folder / CURRENT
        self.previous = self.folder / PREVIOUS

    def exists(self) -> bool:
        """Whether a checkpoint file is there, readable or not."""
        return self.current.exists() or self.previous.exists()

    def save(self, state: State) -> None:
        """Make `state` the newest checkpoint and keep the one before; a failed save raises."""
        pending = _write_pending(state, self.current)
        if self.current.exists():
            # A second name for the newest file, not a move: it stays in place until its successor is there.
            retired = self.folder / (PREVIOUS + ".new")
            retired.unlink(missing_ok=True)
            try:
                os.link(self.current, retired)
            except OSError:
                with needs_space(self.previous):
                    shutil.copyfile(self.current, retired)
            _replace_with_digest(retired, self.previous, _recorded_digest(self.current))
        _replace_with_digest(*pending)

    def load(self) -> State | None:
        """The newest checkpoint that is whole, or None if none was ever written.

        Raises
        ------
        CheckpointError
            If checkpoints are there and none can be read: a run is never restarted silently.

        Warns
        -----
        DeepclustWarning
            Naming each file that is truncated or altered, when the one before it is used instead.
        """
        if not self.exists():
            return None
        problems = []
        for path in (self.current, self.previous):
            try:
                state = load_state(path)
            except CheckpointError as error:
                problems.append(str(error))
                continue
            for problem in problems:
                warnings.warn(f"{problem}; using {path.name} instead", DeepclustWarning, stacklevel=2)
            return state
        raise CheckpointError(
            "; ".join(problems) + f". No checkpoint in {str(self.folder)!r} can be used: start again in a new folder"
        )
