"""What is still known of a run's data: pictures to show, and classes to compare with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from deepclust_ext.data.embeddings import EmbeddingData
from deepclust_ext.data.images import as_float
from deepclust_ext.data.items import Items
from deepclust_ext.data.later_classes import Classes
from deepclust_ext.data.load import KNOWN_NAMES
from deepclust_ext.data.load_checks import is_folder
from deepclust_ext.data.pool import DECODE_BYTES, Budget, in_order
from deepclust_ext.data.reading import Reading, read_file
from deepclust_ext.data.source import Source, source_of
from deepclust_ext.data.stored import Stored, stored
from deepclust_ext.report.run import Labels, Run
from deepclust_ext.runs import RunError

Pixels = npt.NDArray[np.uint8]


class Pictures(Protocol):
    """Where the page's images come from."""

    def read(self, rows: Sequence[int], side: int) -> list[Pixels | None]:
        """Images (H, W) or (H, W, 3) of some rows; None for one that is gone. `side` is what will be shown."""
        ...

    @property
    def side(self) -> int | None:
        """Their longer side in pixels, where all have the same."""
        ...


@dataclass(frozen=True)
class ArrayPictures:
    """Images (N, C, H, W) in memory."""

    images: torch.Tensor

    @property
    def side(self) -> int | None:
        """The longer side."""
        return int(max(self.images.shape[2:]))

    def read(self, rows: Sequence[int], side: int) -> list[Pixels | None]:  # noqa: ARG002
        """They are there."""
        values = self.images[torch.as_tensor(list(rows), dtype=torch.int64)]
        if values.dtype != torch.uint8:
            values = as_float(values).mul(255).round().to(torch.uint8)
        return [each[0] if len(each) == 1 else each.transpose(1, 2, 0) for each in values.numpy()]


@dataclass(frozen=True)
class FilePictures:
    """Files of a folder, or in archives, by name, each scaled and cut to a square as it is read."""

    folder: Path
    names: tuple[str, ...]
    reading: Reading = field(default_factory=Reading)
    side: int | None = None
    archives: Stored | None = None

    def read(self, rows: Sequence[int], side: int) -> list[Pixels | None]:
        """Only what is shown is decoded."""
        wanted = [self.names[row] for row in rows]
        budget = Budget(DECODE_BYTES)

        def decoded(name: str) -> Pixels | None:
            # Files that are smaller than a thumbnail stay as they are: scaled up they would be blurred.
            whole = self.side is not None and self.side <= side
            reading = Reading(
                None if whole else side, self.reading.max_pixels, self.reading.frames, self.reading.stretch
            )
            file = name.rpartition("#")[0] if reading.frames == "all" and "#" in name else name
            if self.archives is None:
                frames = read_file(self.folder, file, reading, budget.reserve)
            else:
                frames = self.archives.read(file, reading, budget.reserve)
            return next((frame.pixels for frame in frames if frame.name == name), None)

        return list(in_order(decoded, wanted))


@dataclass(frozen=True)
class Known:
    """What is known of the data.

    Parameters
    ----------
    pictures : Pictures or None
        None where there are no images, or they are not where they were.
    classes : ndarray of int64, shape (N,), or None
        0 to C - 1; -1 for an image whose class is not known.
    class_names : tuple of str
        C names.
    remarks : tuple of str
        What a reader should know: sentences.
    items : Items or None
        The data themselves, where they were loaded.
    folder : Path or None
        That of the images, where they are files.
    """

    pictures: Pictures | None = None
    classes: Labels | None = None
    class_names: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    items: Items | None = None
    folder: Path | None = None

    @property
    def classed(self) -> npt.NDArray[np.bool_] | None:
        """Which images have a class, (N,); None where no classes are known."""
        return None if self.classes is None else self.classes >= 0

    def with_classes(self, found: Classes, file: str) -> Known:
        """With classes that came after the run, from `file`, in place of those of the data."""
        classes = np.full(len(found.rows) + len(found.unlabelled), -1, dtype=np.int64)
        classes[found.rows] = found.y
        return replace(self, classes=classes, class_names=found.names, remarks=(*self.remarks, *found.remarks(file)))


def known_of(run: Run, *, data: str | None = None, images: str | None = None, folder_labels: bool = False) -> Known:
    """Find a run's data again; that they are gone is a remark and no error.

    Parameters
    ----------
    run : Run
    data : str, optional
        Where they are now.
    images : str, optional
        A folder that the names in labels.csv are paths in, for runs on embeddings.
    folder_labels : bool
        Sub-folders are classes.

    Raises
    ------
    RunError
        If `images` holds none of the files.
    """
    own = FilePictures(Path(images), run.names) if images is not None else None
    if own is not None and not _any_there(own):
        raise RunError(f"report: --images must be the folder that the paths in labels.csv start from, got {images!r}")
    try:
        source = source_of(run.config, run.path, data=data, folder_labels=folder_labels)
    except RunError:
        remark = "The run was not started from the command line and does not say where its data are"
        return Known(own, remarks=(f"{remark}: no images and no classes are shown. --data tells.",))
    if is_folder(source.data) and os.path.exists(source.data):
        return _of_files(run, source, own)
    if source.data not in KNOWN_NAMES and not os.path.exists(source.data):
        return Known(own, remarks=(_gone(source),))
    try:
        found = source.load(min_images=1)
    except (OSError, ValueError, ImportError) as error:
        return Known(own, remarks=(f"The data cannot be read any more ({error}): images and classes are missing.",))
    if len(found) != len(run.labels) or found.digest != (run.config.get("data") or {}).get("digest"):
        remark = f"The data in {source.data} are not those of the run any more: images and classes are not shown."
        return Known(own, remarks=(f"{remark} --data tells where its own are.",))
    classes, names = _classes(found)
    if isinstance(found, EmbeddingData):
        return Known(own or _absolute(run), classes, names, items=found)
    return Known(own or ArrayPictures(found.values), classes, names, items=found)


def _of_files(run: Run, source: Source, own: FilePictures | None) -> Known:
    """Of a folder of images or of archives, of which nothing is decoded here."""
    archives = None if source.folder is not None else stored(Path(source.data))
    reading = Reading(source.image_size, source.max_pixels, source.frames, source.stretch)
    shape = (run.config.get("data") or {}).get("image_shape") or [0]
    side = max(shape[1:], default=None) if source.image_size is None else None
    pictures = own or FilePictures(Path(source.data), run.names, reading, side, archives)
    if not _any_there(pictures):
        return Known(remarks=(_gone(source),), folder=source.folder)
    inner = run.names if archives is None else [archives.inner(name) for name in run.names]
    if not source.folder_labels or any("/" not in name for name in inner):
        labels = None if archives is None else archives.labels(run.names)
        if labels is None:
            return Known(pictures, folder=source.folder)
        folders = [str(label) for label in labels.tolist()]
    else:
        folders = [name.split("/", 1)[0] for name in inner]
    names, classes = np.unique(folders, return_inverse=True)
    return Known(pictures, classes.astype(np.int64), tuple(map(str, names)), folder=source.folder)


def _any_there(pictures: FilePictures) -> bool:
    """Whether some of the first files can be found."""
    names = (name.rpartition("#")[0] if "#" in name else name for name in pictures.names[:20])
    if pictures.archives is not None:
        return not set(names).isdisjoint(pictures.archives.files)
    return any(os.path.exists(pictures.folder / name) for name in names)


def _absolute(run: Run) -> FilePictures | None:
    """The files that embeddings were made of, where their names are whole paths."""
    whole = all(os.path.isabs(name) for name in run.names[:20])
    pictures = FilePictures(Path("/"), run.names)
    return pictures if whole and _any_there(pictures) else None


def _classes(items: Items) -> tuple[Labels | None, tuple[str, ...]]:
    """Classes from 0, and their names."""
    if items.labels is None:
        return None, ()
    values, classes = np.unique(items.labels.numpy(), return_inverse=True)
    return classes.astype(np.int64), tuple(str(value) for value in values.tolist())


def _gone(source: Source) -> str:
    """A sentence for data that have moved."""
    return f"The data are no longer in {source.data}: images and classes are not shown. --data tells where they are."


def load_for_heads(run: Run, source_options: dict[str, Any]) -> Items:
    """Load all images, which another head's labels are made from."""
    return source_of(run.config, run.path, **source_options).load(min_images=1)
