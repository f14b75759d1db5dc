"""The run folder as commands use it: with the request for its data, and a word on files that were left out."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from deepclust_ext.commands._show import note
from deepclust_ext.commands._tensorboard import Board
from deepclust_ext.data import Items
from deepclust_ext.data.cache import FOLDER, make_room
from deepclust_ext.data.counter import Show
from deepclust_ext.data.load_checks import too_few
from deepclust_ext.data.source import Source
from deepclust_ext.data.walk import OURS
from deepclust_ext.embed import EmbeddedImages, embed, load_backbone, write_embedded
from deepclust_ext.runs import RunDirectory, RunError
from deepclust_ext.runs.directory import FEATURES, Mode


def load(
    source: Source,
    *,
    min_images: int = 2,
    beside: Path | None = None,
    quiet: bool = False,
    runs: Sequence[Path] = (),
    device: Any = "auto",
    without: Collection[str] = (),
) -> Items:
    """Load the images, embedded if the source has a backbone, and say which files could not be used.

    Parameters
    ----------
    source : Source
        Which.
    min_images : int
        Refuse fewer.
    beside : Path, optional
        The run folder beside which scaled images, or embeddings, are kept.
    quiet : bool
        Show no progress.
    runs : sequence of Path
        Run folders whose embeddings of the same files are taken.
    device : str or device
        Where images are embedded.
    without : collection of str
        Of a folder whose images are not embedded: files that are not read. (Of the others known ones cost nothing.)
    """
    cache = None if beside is None else beside.parent / FOLDER
    if source.backbone is None:
        # A cache of the new files alone would take the place of that of all.
        kept = None if without else cache
        images: Items = source.load(min_images=min_images, cache=kept, progress=showing(quiet), without=without)
    else:
        images = _embedded(source, min_images, cache, quiet, runs, device)
    say_skipped(images)
    return images


def _embedded(
    source: Source, least: int, cache: Path | None, quiet: bool, runs: Sequence[Path], device: Any
) -> EmbeddedImages:
    """Embed a source's images."""
    backbone = load_backbone(source.backbone or "", weights=source.weights, image_size=source.image_size, device=device)
    key = json.dumps([source.record()["data"], source.split, backbone.identity])
    out = None if cache is None else cache / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
    if cache is not None:
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            note(f"embeddings cannot be kept beside the run ({error})")
            out = None
    images = embed(
        source.data,
        backbone,
        out=out,
        known=[run / FEATURES for run in runs],
        split=source.split,
        folder_labels=source.folder_labels,
        max_pixels=source.max_pixels,
        frames=source.frames,
        stretch=source.stretch,
        progress=showing(quiet),
    )
    if out is not None:
        make_room(out, out.stat().st_size)
    if len(images) < least:
        raise ValueError(too_few(images, least))
    if not quiet:
        note(images.summary)
    return images


def showing(quiet: bool) -> Show:
    """How reading is shown: by a bar in a terminal, in lines in a log."""
    return False if quiet else True if sys.stderr.isatty() else note


def say_skipped(images: Items) -> None:
    """Say which files were left out."""
    own = [path for path, reason in images.skipped if reason == OURS]
    if own:
        note(f"{own[0]!r}{f' and {len(own) - 1} more' if own[1:] else ''}: results of deepclust are not read as data")
    others = [(path, reason) for path, reason in images.skipped if reason != OURS]
    if others:
        path, reason = others[0]
        files = "1 file" if len(others) == 1 else f"{len(others)} files"
        note(f"{files} skipped, the first {path!r}: {reason}")


class SourcedRun(RunDirectory):
    """A run folder whose config.yaml also says how the command line asked for the data; with curves if asked for.

    Embeddings that were made for the run are kept in it: made again on another machine, they may differ in their last
    bits, and would be other data. `choice` is what a number of clusters was chosen by: config.yaml and metrics.json
    have it too.
    """

    def __init__(
        self,
        path: Path,
        mode: Mode,
        *,
        source: Source,
        images: Items,
        tensorboard: bool = False,
        choice: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.source, self.images, self.choice = source, images, choice or {}
        # Before the folder is opened, which may fail and closes what there is.
        self._board: Board | None = None
        super().__init__(path, mode)
        if tensorboard:
            self._board = Board(path)

    def log(self, event: str, **fields: Any) -> None:
        """Draw what is logged too."""
        super().log(event, **fields)
        if self._board is not None:
            self._board.log(event, fields)

    def close(self) -> None:
        """Close the curves too."""
        if self._board is not None:
            self._board.close()
        super().close()

    def write_config(self, config: dict[str, Any]) -> None:
        """Add the request to the data's entry, and keep the embeddings."""
        data = {**config["data"], "request": self.source.record()}
        if isinstance(self.images, EmbeddedImages):
            data["network"] = self.images.network
        super().write_config({**config, **self.choice, "data": data})
        if isinstance(self.images, EmbeddedImages):
            write_embedded(self.path / FEATURES, self.images)

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Add the choice."""
        super().write_metrics({**metrics, **self.choice})


def open_for_reading(path: str) -> RunDirectory:
    """Open one run; the folder of several seeds is refused by name."""
    where = Path(path)
    if not (where / "config.yaml").exists():
        members = sorted(where.glob("seed-*/config.yaml"))
        if members:
            raise RunError(
                f"run folder: {path!r} holds {len(members)} runs, one a seed; give one of them, "
                f"such as {str(members[0].parent)!r}"
            )
    return RunDirectory(where, mode="read")
