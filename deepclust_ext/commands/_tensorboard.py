"""The curves of a run for TensorBoard, from the records of its log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deepclust_ext._optional import require

FOLDER = "tensorboard"


class Board:
    """Writes the numbers of every epoch's record into an event file.

    Nothing is written before the first epoch, so that a run that is only looked at leaves no file.

    Parameters
    ----------
    folder : Path
        The run folder; the events go into `tensorboard` there.
    """

    def __init__(self, folder: Path) -> None:
        check_installed()
        self.folder = folder / FOLDER
        self._writer: Any = None
        self._first: int | None = None

    def log(self, event: str, fields: Mapping[str, Any]) -> None:
        """Take over a record of the log: an epoch is drawn, and after a resume what came later is dropped."""
        if event == "resume":
            self._first = int(fields["epoch"]) + 1
        if event != "epoch":
            return
        if self._writer is None:
            writer = require("torch.utils.tensorboard").SummaryWriter
            self._writer = writer(str(self.folder), purge_step=self._first)
        for tag, value in scalars({key: value for key, value in fields.items() if key != "epoch"}):
            self._writer.add_scalar(tag, value, int(fields["epoch"]))
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def check_installed() -> None:
    """Raise an ImportError that names the extra if TensorBoard is not installed."""
    require("tensorboard", "tensorboard")


def scalars(record: Mapping[str, Any] | list[Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a record with their paths; an entry of a list has its index.

    Examples
    --------
    >>> dict(scalars({"loss": -1.5, "scores": [{"nmi": 0.5}, {"nmi": 0.75}], "note": "x"}))
    {'loss': -1.5, 'scores/0/nmi': 0.5, 'scores/1/nmi': 0.75}
    """
    items = record.items() if isinstance(record, Mapping) else ((str(i), value) for i, value in enumerate(record))
    for key, value in items:
        if isinstance(value, Mapping | list | tuple):
            yield from scalars(value if isinstance(value, Mapping) else list(value), f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", float(value)
