"""Runs that survive: a locked folder with config, log, checkpoints and results, and a clean stop."""

from __future__ import annotations

from .atomic import atomic_writer
from .checkpoint import CheckpointStore, load_state, save_state
from .config import compare_configs, describe, versions
from .directory import RunDirectory
from .errors import CheckpointError, ResumeMismatchError, RunError, RunInUseError
from .signals import Interrupted, StopGuard

__all__ = [
    "CheckpointError",
    "CheckpointStore",
    "Interrupted",
    "ResumeMismatchError",
    "RunDirectory",
    "RunError",
    "RunInUseError",
    "StopGuard",
    "atomic_writer",
    "compare_configs",
    "describe",
    "load_state",
    "save_state",
    "versions",
]
