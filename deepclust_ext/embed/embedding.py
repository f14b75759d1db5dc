"""Images through a pretrained network: threads decode, the network works, and what it has made is kept as it comes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepclust_ext import _checks as check
from deepclust_ext._isolation import own_torch_state
from deepclust_ext.data.counter import FileCounter, Show
from deepclust_ext.data.folder import nothing_found, pillow_limit
from deepclust_ext.data.pool import in_order
from deepclust_ext.data.reading import Reading
from deepclust_ext.embed.backbone import Backbone
from deepclust_ext.embed.pictures import Pictures, pictures_of
from deepclust_ext.embed.rows import NEVER, EmbeddedImages, FileRows, Known, RowJournal, Stamp, write_embedded

# Images at once: what keeps a GPU busy; what fits the caches of a processor.
BATCH_GPU, BATCH_CPU = 256, 32
# Seconds between two writes of what has been made.
PERIOD = 5.0


def embed(
    data: Any,
    backbone: Backbone,
    *,
    out: str | os.PathLike[str] | None = None,
    known: Iterable[str | os.PathLike[str]] = (),
    split: str = "train",
    folder_labels: bool = False,
    max_pixels: int | None = None,
    frames: str = "first",
    stretch: int | None = None,
    batch: int | None = None,
    half: bool | None = None,
    progress: Show = False,
) -> EmbeddedImages:
    """Embed images by a network, each file once.

    Files are decoded by threads on all cores while the network works. With `out`, the embeddings are written to a file
    together with path, size and time of modification of what they were made from: called again, only files that are
    new or have changed are embedded, and an embedding that is there already keeps its bits. A call that is killed goes
    on where it was, from a journal beside that file. The size of batches may change the last bits of an embedding.

    Parameters
    ----------
    data
        A folder, an `.npz` file of images, an array, a data set or a name, as `load_data` takes them.
    backbone : Backbone
        Of `load_backbone`.
    out : str or path, optional
        The `.npz` file to write or bring up to date.
    known : iterable of str or path
        Further files of earlier calls, whose embeddings are taken where the same network made them of the same files.
    split, folder_labels, max_pixels, frames, stretch
        As in `load_data`. Labels become `y`.
    batch : int, optional
        Images at once: by default 256 on a GPU, 32 without.
    half : bool, optional
        Keep the embeddings in float16, and on a GPU compute in it. By default on a GPU.
    progress : bool, None or callable
        As in `load_data`.

    Returns
    -------
    EmbeddedImages
        (N, d) float32 or float16, in the order of the data; `skipped` names the files that could not be used, and those
        for which the network gives no finite numbers.

    Raises
    ------
    ValueError, TypeError
        If an argument or the data cannot be used, or no image is left.
    OSError
        If `out` cannot be written.

    Examples
    --------
    >>> from deepclust_ext.embed import load_backbone
    >>> backbone = load_backbone("resnet18", weights="resnet18-f37072fd.pth")  # doctest: +SKIP
    >>> embed("photos/", backbone, out="embeddings.npz")  # doctest: +SKIP
    EmbeddedImages(photos/: 1200 embeddings of 512 dimensions, torch.float32, no labels)
    """
    device = next((value.device for value in backbone.net.state_dict().values()), torch.device("cpu"))
    use_half = device.type == "cuda" if half is None else check.flag("embed", "half", half)
    size = (BATCH_GPU if device.type == "cuda" else BATCH_CPU) if batch is None else batch
    check.whole_number("embed", "batch", size, at_least=1)
    reading = Reading(None, max_pixels, frames, stretch, backbone.preprocessing.square)
    pictures = pictures_of(data, reading, split=split, folder_labels=folder_labels)
    target = None if out is None else Path(out)
    before = Known(_identity(backbone, reading), np.float16 if use_half else np.float32)
    # A run's own rows last: they must keep their bits whatever a cache has.
    for path in (*(() if target is None else (target,)), *known):
        before.add_archive(Path(path))
    journal = None if target is None else RowJournal(target.with_name(f".{target.name}.part"), before)
    try:
        with own_torch_state(device), torch.inference_mode():
            work = _Work(pictures, backbone, before, journal, device, size)
            found = work.run(progress, max_pixels)
        if target is not None:
            write_embedded(target, found)
    finally:
        if journal is not None:
            journal.close()
    if journal is not None:
        journal.path.unlink(missing_ok=True)
    return found


def _identity(backbone: Backbone, reading: Reading) -> str:
    """The network's, and what else an embedding depends on where it is not as usual."""
    usual = Reading(square=reading.square, max_pixels=reading.max_pixels)
    return backbone.identity if reading == usual else f"{backbone.identity} {reading.frames} {reading.stretch}"


class _Work:
    """One pass over the pictures: what is known is taken, the rest goes through the network in batches."""

    def __init__(
        self,
        pictures: Pictures,
        backbone: Backbone,
        known: Known,
        journal: RowJournal | None,
        device: torch.device,
        batch: int,
    ) -> None:
        self.pictures, self.backbone, self.known, self.journal = pictures, backbone, known, journal
        self.device, self.batch = device, batch
        self.stamps: dict[str, Stamp] = {file: pictures.stamp(file) for file in pictures.files}
        self.rows: dict[str, FileRows] = {}
        self.skipped = list(pictures.skipped)
        self.spoiled: set[str] = set()
        self.n_new = 0
        # Frames that wait for the network, what it works on, and files that are done but not in the journal.
        self._waiting: list[tuple[str, str, NDArray[np.uint8]]] = []
        self._flying: tuple[list[tuple[str, str]], Tensor] | None = None
        self._done: list[str] = []
        self._written = time.monotonic()

    def run(self, progress: Show, max_pixels: int | None) -> EmbeddedImages:
        """Embed what is not known, and put all together."""
        start = time.monotonic()
        new = []
        for file in self.pictures.files:
            rows = self.known.find(file, self.stamps[file])
            if rows is None:
                new.append(file)
            else:
                self.rows[file] = rows
        counter = FileCounter(progress, len(new))
        several: list[str] = []
        highest: list[int | None] = []
        try:
            with pillow_limit(max_pixels), self._kept():
                for file, frames in zip(new, in_order(self.pictures.read, new, ahead=2 * self.batch), strict=True):
                    counter.step()
                    for frame in frames:
                        if frame.pixels is None:
                            self._skip(file, frame.name, frame.reason)
                            continue
                        highest.append(frame.highest)
                        several += [frame.name] if frame.more else []
                        self._waiting.append((file, frame.name, frame.pixels))
                        if len(self._waiting) == self.batch:
                            self._launch()
                self._launch()
                self._land()
        finally:
            counter.close()
        self.pictures.remark(several, highest)
        return self._together(time.monotonic() - start)

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """However the block ends, what was made in it goes to the journal."""
        try:
            yield
        except BaseException:
            self._write()
            raise
        self._write(last=True)

    def _launch(self) -> None:
        """Give the network what waits. A GPU works on it while the next images are decoded."""
        if not self._waiting:
            return
        size = self.backbone.preprocessing.square.size
        pixels = np.empty((len(self._waiting), size, size, 3), np.uint8)
        for row, (_, _, picture) in zip(pixels, self._waiting, strict=True):
            row[...] = picture if picture.ndim == 3 else picture[:, :, None]
        names = [(file, frame) for file, frame, _ in self._waiting]
        self._waiting = []
        with torch.autocast(
            "cuda", torch.float16, enabled=self.device.type == "cuda" and self.known.dtype == np.float16
        ):
            images = self.backbone.preprocessing.batch(torch.from_numpy(pixels), device=self.device)
            features = self.backbone.features(images)
        self._land()
        self._flying = names, features

    def _land(self) -> None:
        """Take what the network has made."""
        if self._flying is None:
            return
        names, features = self._flying
        self._flying = None
        # Beyond float16's range a number becomes infinite, and its image is left out.
        with np.errstate(over="ignore"):
            rows = features.float().cpu().numpy().astype(self.known.dtype)
        for (file, frame), row, finite in zip(names, rows, np.isfinite(rows).all(1), strict=True):
            if not finite:
                half = " in half precision" if self.known.dtype == np.float16 else ""
                self._skip(file, frame, f"the network gives numbers for it that are not finite{half}")
                continue
            own = self.rows.setdefault(file, [])
            own.append((frame, row))
            self.n_new += 1
            if len(own) == 1:
                self._done.append(file)
        if time.monotonic() - self._written > PERIOD:
            self._write()

    def _skip(self, file: str, frame: str, reason: str) -> None:
        """Leave a frame out, and look at its file anew next time: a package that it needs may be there by then."""
        self.skipped.append((frame, reason))
        self.spoiled.add(file)

    def _write(self, *, last: bool = False) -> None:
        """Put the files that are done into the journal; of the last one, frames may still be on their way."""
        whole = self._done if last else self._done[:-1]
        self._done = self._done[len(whole) :]
        self._written = time.monotonic()
        if self.journal is not None:
            kept = [file for file in whole if file not in self.spoiled and self.stamps[file] != NEVER]
            self.journal.append([(file, self.stamps[file], self.rows[file]) for file in kept])

    def _together(self, seconds: float) -> EmbeddedImages:
        """All rows in the order of the files."""
        names: list[str] = []
        rows: list[NDArray[Any]] = []
        stamps: list[tuple[int, int, int]] = []
        for file in self.pictures.files:
            own = self.rows.get(file, [])
            stamp = NEVER if file in self.spoiled else self.stamps[file]
            apart = len(own) if own and own[0][0] != file else 0
            stamps += [(*stamp, apart)] * len(own)
            names += [name for name, _ in own]
            rows += [row for _, row in own]
        if not rows:
            raise ValueError(nothing_found(Path(self.pictures.source), self.skipped))
        return EmbeddedImages(
            torch.from_numpy(np.stack(rows)),
            self.pictures.labels(names),
            tuple(names),
            tuple(sorted(self.skipped)),
            self.pictures.source,
            stamps=np.array(stamps, np.int64),
            network=self.known.network,
            n_new=self.n_new,
            seconds=seconds,
        )
