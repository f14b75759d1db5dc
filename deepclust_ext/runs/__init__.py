"""Runs that survive: a locked folder with config, log, checkpoints and results, and a clean stop."""

from __future__ import annotations

from .atomic import atomic_writer
from .checkpoint import CheckpointStore, load_state, save_state
from .config import compare_configs, describe, versions
from .directory import RunDirectory, resume_mode
from .errors import CheckpointError, NoSpaceError, RankLostError, ResumeMismatchError, RunError, RunInUseError
from .signals import Interrupted, StopGuard
from .space import needs_space
from .tables import csv_bytes, labels_csv, write_csv

__all__ = [
    "CheckpointError",
    "CheckpointStore",
    "Interrupted",
    "NoSpaceError",
    "RankLostError",
    "ResumeMismatchError",
    "RunDirectory",
    "RunError",
    "RunInUseError",
    "StopGuard",
    "atomic_writer",
    "compare_configs",
    "csv_bytes",
    "describe",
    "labels_csv",
    "load_state",
    "needs_space",
    "resume_mode",
    "save_state",
    "versions",
    "write_csv",
]
