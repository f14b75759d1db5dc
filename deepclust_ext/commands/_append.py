"""`predict --only-new`: which images have a label already, and new rows at the end of a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from deepclust_ext.commands._parser import UsageError
from deepclust_ext.data.source import Source
from deepclust_ext.runs import RunDirectory, RunError, atomic_writer
from deepclust_ext.runs.directory import LABELS
from deepclust_ext.training.warm_start import read_clusters


def labelled_names(out: Path, run: RunDirectory, source: Source, request: dict[str, Any]) -> set[str]:
    """The names of images that need no label any more: those in OUT, and in the run's own file if the data are its own.

    Parameters
    ----------
    out : Path
        A file of predictions, if it is there.
    run : RunDirectory
        The run.
    source : Source
        What is to be labelled.
    request : dict
        What the run was fitted on, as `Source.record` has it; empty if that is not known.
    """
    names = set(read_clusters(out)) if out.is_file() else set()
    fitted_on = request.get("data")
    if fitted_on is not None and os.path.realpath(fitted_on) == os.path.realpath(source.data):
        names |= set(read_clusters(run.path / LABELS))
    return names


def append_rows(out: Path, content: bytes) -> None:
    """Write a CSV file, or put its rows at the end of one that is there, which is whole before and after.

    Raises
    ------
    RunError
        If the columns are others, as in a file of an earlier version.
    """
    header, _, rows = content.partition(b"\n")
    if out.is_file():
        before = out.read_bytes()
        if before.partition(b"\n")[0] != header:
            raise RunError(
                f"--only-new cannot add to {str(out)!r}: its columns are not {header.decode()}; choose another --out"
            )
        content = before + rows
    with atomic_writer(out) as file:
        file.write(content)


def check_only_new(whole: str | None, out: str | None) -> None:
    """Refuse what does not go with rows that are added to others."""
    if out == "-":
        raise UsageError("--only-new must come with a file in --out, got -")
    if whole:
        raise UsageError("--only-new must come without --export and --format, which show the labels of all images")
