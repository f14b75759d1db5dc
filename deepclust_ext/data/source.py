"""Where a run's images came from: loaded for the fit, recorded in config.yaml, found again by `evaluate`."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deepclust_ext.data.array_shards import array_shards
from deepclust_ext.data.counter import Show
from deepclust_ext.data.items import Items
from deepclust_ext.data.load import KNOWN_NAMES, has_split, load_items
from deepclust_ext.data.stored import in_shards
from deepclust_ext.runs import ResumeMismatchError, RunError


@dataclass(frozen=True)
class Source:
    """Data as the command line names them.

    Parameters
    ----------
    data : str
        A folder, a file or a known name.
    split : str
        "train", "test" or "all".
    image_size : int, optional
        Scale and crop to squares of this size.
    folder_labels : bool
        Take the names of sub-folders for classes.
    max_pixels, frames, stretch
        As in `load_data`.
    backbone, weights : str, optional
        The network that embeds the images, as in `embed.load_backbone`.
    """

    data: str
    split: str = "train"
    image_size: int | None = None
    folder_labels: bool = False
    max_pixels: int | None = None
    frames: str = "first"
    stretch: int | None = None
    backbone: str | None = None
    weights: str | None = None

    def load(
        self,
        *,
        min_images: int = 2,
        cache: Path | None = None,
        progress: Show = False,
        without: Collection[str] = (),
    ) -> Items:
        """Load the images, not embedded yet, or embeddings; `cache`, `progress` and `without` as in `load_items`."""
        return load_items(
            self.data,
            split=self.split,
            image_size=self.image_size,
            folder_labels=self.folder_labels,
            min_images=min_images,
            max_pixels=self.max_pixels,
            frames=self.frames,
            stretch=self.stretch,
            cache=cache,
            progress=progress,
            without=without,
        )

    def has_test(self) -> bool:
        """Whether there are test images beside the training images of this run."""
        return self.split == "train" and has_split(self.data, "test")

    @property
    def folder(self) -> Path | None:
        """The folder of images, if it is one; images in archives are no files by themselves."""
        if self.data in KNOWN_NAMES or not Path(self.data).is_dir() or in_shards(self.data) or array_shards(self.data):
            return None
        return Path(self.data)

    def record(self) -> dict[str, Any]:
        """Plain values for config.yaml: a path is made absolute, as commands are run from anywhere."""
        data = self.data if self.data in KNOWN_NAMES else os.path.abspath(self.data)
        weights = (
            self.weights if self.weights is None or not os.path.isfile(self.weights) else os.path.abspath(self.weights)
        )
        return {**asdict(self), "data": data, "weights": weights}


def source_of(
    config: Mapping[str, Any], where: Path, *, data: str | None = None, folder_labels: bool = False
) -> Source:
    """The data of a run as it asked for them.

    Parameters
    ----------
    config : mapping
        The run's config.yaml.
    where : Path
        Its folder, for the message.
    data : str, optional
        Where the data are now.
    folder_labels : bool
        Take classes from sub-folders even if the run did not.

    Returns
    -------
    source : Source

    Raises
    ------
    RunError
        If the run was not started from the command line, and `data` is not given.
    """
    request = (config.get("data") or {}).get("request") or {}
    if data is not None:
        request = {**request, "data": data}
    if not request:
        raise RunError(f"evaluate: the run in {str(where)!r} does not say where its data are; pass --data")
    return Source(**{**request, "folder_labels": folder_labels or request.get("folder_labels", False)})


def check_digest(images: Items, config: Mapping[str, Any], where: Path) -> None:
    """Refuse images that are not those the run was fitted on."""
    data = config.get("data") or {}
    if images.digest != data.get("digest"):
        raise ResumeMismatchError(
            f"evaluate: the run in {str(where)!r} was fitted on other images ({data.get('n_images')} from "
            f"{data.get('source')}) than these {len(images)} from {images.source}; pass --data with the ones it had"
        )
