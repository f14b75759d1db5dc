"""Files beside a run's results: images sorted into a folder per cluster, and the list of files left out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deepclust_ext.commands._export_folder import ExportFolder
from deepclust_ext.commands._parser import UsageError
from deepclust_ext.data import Items
from deepclust_ext.data.source import Source
from deepclust_ext.runs import needs_space, write_csv

# The folder of a run's own export, beside its labels.csv.
EXPORT = "clusters"
# Links are symbolic; hard links keep the image where its folder is tidied up, and need one file system.
EXPORTS = ("copy", "link", "hardlink")
# In it, the folder of images that are in no cluster, as they are unsure.
UNSURE = "unsure"


def export_beside(table: Path) -> Path:
    """The folder for an export of predictions; in a run folder it is not the one of the run's own labels."""
    in_run = (table.parent / "config.yaml").is_file()
    return table.with_name(f"{table.stem}-{EXPORT}" if in_run else EXPORT)


def check_export(source: Source, target: Path, how: str) -> None:
    """Refuse a target that cannot be written, before the work and not after it.

    Parameters
    ----------
    source : Source
        Must be a folder.
    target : Path
        The folder of the export.
    how : str
        Of `EXPORTS`.

    Raises
    ------
    UsageError
        If the images are in the target, so that replacing it would take them away; or on another file system, where
        there are no hard links to them.
    RunError
        If the target holds files that no export wrote.
    """
    if source.folder is None:
        missing = "" if os.path.exists(source.data) else ", and there is no such folder"
        raise UsageError(f"--export must come with a folder of images, got --data {source.data}{missing}")
    if source.frames == "all":
        raise UsageError("--export must come without --frames all: a frame of a file is no file")
    here, there = Path(os.path.realpath(source.folder)), Path(os.path.realpath(target))
    if there == here or there in here.parents:
        raise UsageError(
            f"--export must not replace the images it sorts, got --data {source.data} in {str(target)!r}; "
            "choose another --out"
        )
    parent = next(each for each in (there, *there.parents) if each.exists())
    if how == "hardlink" and here.stat().st_dev != parent.stat().st_dev:
        raise UsageError(
            f"--export hardlink must have --out on the file system of the images, got {source.data} and "
            f"{str(target)!r}; --export copy or link will do"
        )
    ExportFolder(target).check()


def export(source: Source, images: Items, labels: npt.NDArray[np.int64], target: Path, how: str) -> None:
    """Make TARGET/CLUSTER/NAME for every image; sub-folders in the name are kept, so none collide.

    It is written aside and takes the place of an earlier export in one step, so that TARGET shows one labelling.

    Parameters
    ----------
    source : Source
        Must be a folder.
    images : Items
        Gives the names.
    labels : ndarray of int64, shape (N,)
        The cluster of each image; -1 goes to the folder `UNSURE`.
    target : Path
        The folder to make or replace.
    how : {"copy", "link", "hardlink"}
        Symbolic links are absolute.
    """
    check_export(source, target, how)
    folder = source.folder or Path()

    def paths() -> Iterator[tuple[str, Path]]:
        for name, label in zip(images.names, labels.tolist(), strict=True):
            yield f"{UNSURE if label < 0 else label}/{name}", folder / name

    def write(original: Path, path: Path) -> None:
        if how == "link":
            path.symlink_to(os.path.abspath(original))
        elif how == "hardlink":
            # Of the file, not of a link to it.
            os.link(os.path.realpath(original), path)
        else:
            shutil.copy2(original, path)

    with needs_space(target):
        ExportFolder(target).replace(dict(paths()), write)


def write_skipped(images: Items, folder: Path) -> None:
    """Write FOLDER/skipped.csv if files were left out."""
    if images.skipped:
        write_csv(folder / "skipped.csv", ("path", "reason"), images.skipped)
