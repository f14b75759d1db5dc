"""Files beside a run's results: images sorted into a folder a cluster, and the list of files left out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deepclust_ext.data import ImageData
from deepclust_ext.data.source import Source
from deepclust_ext.runs import write_csv


def export(source: Source, images: ImageData, labels: npt.NDArray[np.int64], target: Path, how: str) -> None:
    """Copy or link every image to TARGET/CLUSTER/NAME; sub-folders in the name are kept, so none collide.

    Parameters
    ----------
    source : Source
        Must be a folder.
    images : ImageData
        Gives the names.
    labels : ndarray of int64, shape (N,)
        The cluster of each image.
    target : Path
        Made if missing; what is there is written over.
    how : {"copy", "link"}
        Links are absolute.
    """
    if source.folder is None:
        raise ValueError(f"export: 'source' must be a folder of images, got {source.data!r}")
    for name, label in zip(images.names, labels.tolist(), strict=True):
        path = target / str(label) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        if how == "link":
            path.symlink_to(os.path.abspath(source.folder / name))
        else:
            shutil.copy2(source.folder / name, path)


def write_skipped(images: ImageData, folder: Path) -> None:
    """Write FOLDER/skipped.csv if files were left out."""
    if images.skipped:
        write_csv(folder / "skipped.csv", ("path", "reason"), images.skipped)
