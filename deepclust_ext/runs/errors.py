"""What can go wrong with a run folder, each kind under its own name."""

from __future__ import annotations


class RunError(RuntimeError):
    """A run folder cannot be used as asked; the message says which one and how to mend it."""


class RunInUseError(RunError):
    """Another process holds the run folder."""


class CheckpointError(RunError):
    """No checkpoint of the run can be read."""


class ResumeMismatchError(RunError):
    """The run in the folder was made with another method, other parameters, data or version."""


class NoSpaceError(RunError, OSError):
    """The disk, or what of it one may use, is full."""

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno

    def __str__(self) -> str:
        return str(self.args[0])


class RankLostError(RunError):
    """Another process of a run that several share has ended."""
