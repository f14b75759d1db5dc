"""The run folder: configuration, log, checkpoints and results of one run, under one lock."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from .._optional import require
from .._warnings import DeepclustWarning
from .atomic import atomic_writer
from .checkpoint import CURRENT, CheckpointStore
from .config import Config, describe
from .errors import NoSpaceError, RunError, RunInUseError
from .marker import MARKER, mark, marked
from .space import needs_space
from .tables import labels_lines

LOCK = ".lock"
Mode = Literal["create", "resume", "auto", "read"]
Record = dict[str, Any]
Self = TypeVar("Self", bound="RunDirectory")

# What flock says on file systems without it, such as Lustre and some of FUSE.
_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP})

LABELS, METRICS, EMBEDDINGS = "labels.csv", "metrics.json", "embeddings.npz"
# The embeddings that a run was fitted on, where it made them itself.
FEATURES = "features.npz"


def resume_mode(resume: bool | str) -> Mode:
    """Return the mode that a method's `resume` (False, True or "auto") asks for."""
    return "auto" if resume == "auto" else "resume" if resume else "create"


def holds_started_run(path: Path) -> bool:
    """Whether a folder holds a run that came to its first checkpoint; before that there is nothing to lose."""
    if not (path / "config.yaml").is_file():
        return False
    # Without the marker we cannot know that it is ours.
    log = path / "log.jsonl"
    return not marked(path) or CheckpointStore(path).exists() or (log.exists() and b'"epoch"' in log.read_bytes())


class RunDirectory:
    """A folder that holds one run and belongs to one process at a time.

    The lock is the kernel's (`flock` on a file in the folder): it ends with the process, however that dies.

    Parameters
    ----------
    path : str or path
        The folder; made if it is missing (except for "resume" and "read").
    mode : {"create", "resume", "auto", "read"}
        "create" refuses a folder that holds a run, finished or not, or anything else; "resume" wants a run;
        "auto" takes either a run or an empty folder; "read" wants a run, takes no lock and writes nothing.

    Raises
    ------
    RunInUseError
        If another process, or another RunDirectory of this one, holds the folder.
    RunError
        If the folder does not fit the mode.

    Examples
    --------
    >>> import tempfile
    >>> with RunDirectory(tempfile.mkdtemp()) as run:
    ...     run.log("epoch", epoch=1, loss=-0.5)
    ...     [record["loss"] for record in run.read_log()]
    [-0.5]
    """

    def __init__(self, path: str | os.PathLike[str], mode: Mode = "create") -> None:
        if mode not in ("create", "resume", "auto", "read"):
            raise ValueError(f"RunDirectory: 'mode' must be 'create', 'resume', 'auto' or 'read', got {mode!r}")
        self.path = Path(path)
        self.mode = mode
        self._lock: int | None = None
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"run folder: {str(path)!r} is a file; give the name of a folder")
        if mode in ("resume", "read") and not self.holds_run:
            raise RunError(f"run folder: {str(path)!r} holds no run (there is no config.yaml in it)")
        self.checkpoints = CheckpointStore(self.path)
        if mode != "read":
            with needs_space(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                self._acquire()
            try:
                self._check_content()
                with needs_space(self.path):
                    mark(self.path)
            except BaseException:
                self.close()
                raise

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def holds_run(self) -> bool:
        """Whether a run was started in this folder."""
        return (self.path / "config.yaml").is_file()

    @property
    def holds_results(self) -> bool:
        """Whether all files of a finished run are there."""
        return all((self.path / name).is_file() for name in (LABELS, METRICS, EMBEDDINGS))

    def close(self) -> None:
        """Give the folder back; safe to call twice."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _acquire(self) -> None:
        """Take the lock or say who has it."""
        # The lock file is never deleted: a lock on a deleted file is one that nobody else sees.
        descriptor = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise RunInUseError(
                f"run folder: {str(self.path)!r} is in use by process {holder or '(unknown)'}; "
                "wait for it to end, or choose another folder"
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                os.close(descriptor)
                raise
            warnings.warn(
                f"run folder: the file system of {str(self.path)!r} has no locks ({error.strerror}): that a second "
                "process writes into the folder is not noticed, so start none",
                DeepclustWarning,
                stacklevel=4,
            )
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        self._lock = descriptor

    def _check_content(self) -> None:
        """Refuse to write over a run, or into a folder that holds something else."""
        if self.mode == "create":
            self._clear_failed_start()
        if self.holds_run:
            if self.mode == "create":
                raise RunError(
                    f"run folder: {str(self.path)!r} already holds a run; resume it, or choose another folder"
                )
        elif any(not _is_left_over(entry.name) for entry in self.path.iterdir()):
            raise RunError(f"run folder: {str(self.path)!r} is not empty and holds no run; choose another folder")

    def _clear_failed_start(self) -> None:
        """Delete what a run has written that ended before its first checkpoint, as on a full disk."""
        if self.holds_run and not holds_started_run(self.path):
            for name in ("config.yaml", "log.jsonl", FEATURES):
                (self.path / name).unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        """The path of a file to write; only the holder of the lock may."""
        if self._lock is None:
            raise RunError(f"run folder: {str(self.path)!r} is not open for writing")
        return self.path / name

    # Configuration and log

    def write_config(self, config: Config) -> None:
        """Write config.yaml; from then on the folder holds a run."""
        text = require("yaml").safe_dump(describe(config), sort_keys=False, allow_unicode=True)
        with atomic_writer(self._file("config.yaml")) as file:
            file.write(text.encode())

    def read_config(self) -> Config:
        """The content of config.yaml."""
        yaml = require("yaml")
        try:
            config = yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise RunError(f"run folder: config.yaml in {str(self.path)!r} cannot be read ({error})") from error
        if not isinstance(config, dict):
            raise RunError(f"run folder: config.yaml in {str(self.path)!r} is not a mapping")
        return config

    def log(self, event: str, **fields: Any) -> None:
        """Append one record to log.jsonl: `event`, the time in seconds since 1970, and the fields."""
        record = {"event": event, "time": round(time.time(), 3), **describe(fields)}
        path = self._file("log.jsonl")
        size = path.stat().st_size if path.exists() else 0
        try:
            with needs_space(path), path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record, allow_nan=False) + "\n")
        except NoSpaceError:
            os.truncate(path, size)
            raise

    def read_log(self) -> list[Record]:
        """The records of log.jsonl; a last line that a kill cut short is left out."""
        path = self.path / "log.jsonl"
        if not path.exists():
            return []
        records: list[Record] = []
        lines = path.read_bytes().splitlines()
        for number, line in enumerate(lines, start=1):
            try:
                records.append(dict(json.loads(line)))
            except (TypeError, ValueError):
                if number < len(lines):
                    warnings.warn(
                        f"run folder: line {number} of {str(path)!r} is damaged and left out",
                        DeepclustWarning,
                        stacklevel=2,
                    )
        return records

    def rewind_log(self, epoch: int) -> list[Record]:
        """Drop the records after `epoch`, so that the epochs that are done again are not in the log twice.

        Returns
        -------
        records : list of dict
            What is left.
        """
        records = [record for record in self.read_log() if record.get("epoch", 0) <= epoch]
        with atomic_writer(self._file("log.jsonl")) as file:
            file.write("".join(json.dumps(record, allow_nan=False) + "\n" for record in records).encode())
        return records

    # Results

    def write_labels(
        self,
        names: Sequence[str],
        labels: npt.NDArray[np.int64],
        confidence: npt.NDArray[np.floating[Any]],
        columns: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> None:
        """Write labels.csv from N names, clusters (N,), confidences (N,) and more, as `labels_csv` has them."""
        with atomic_writer(self._file(LABELS)) as file:
            file.writelines(labels_lines(names, labels, confidence, columns))

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Write metrics.json; NaN and infinity, which JSON lacks, become null."""
        with atomic_writer(self._file(METRICS)) as file:
            file.write((json.dumps(describe(metrics), indent=2, allow_nan=False) + "\n").encode())

    def read_metrics(self) -> dict[str, Any]:
        """The content of metrics.json; empty if the run has not written it."""
        path = self.path / METRICS
        if not path.exists():
            return {}
        try:
            metrics = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(f"run folder: {str(path)!r} is no JSON ({error}); delete it") from error
        if not isinstance(metrics, dict):
            raise RunError(f"run folder: {str(path)!r} must hold a mapping, got {metrics!r:.40}; delete it")
        return metrics

    def write_embeddings(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write embeddings.npz with the given arrays, one row an image."""
        with atomic_writer(self._file(EMBEDDINGS)) as file:
            np.savez(file, **dict[str, Any](arrays))


def _is_left_over(name: str) -> bool:
    """Whether a start that failed may leave a file of that name; the next one writes over it."""
    return name in (LOCK, MARKER, CURRENT + ".new") or (name.startswith(".") and name.endswith(".tmp"))
