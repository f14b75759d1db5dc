"""Show how many files of a folder are read: a bar in a terminal, or a line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

from deepclust_ext._optional import require

# Seconds between two lines.
PERIOD = 10.0

Show: TypeAlias = "bool | Callable[[str], object] | None"


class FileCounter:
    """Counts files.

    Parameters
    ----------
    show : bool, None or callable
        A bar, no bar, or (None) a bar in a terminal only; a callable gets a line of text every `PERIOD` seconds.
    total : int
        Files in all.
    """

    def __init__(self, show: Show, total: int) -> None:
        self._say = show if callable(show) else None
        self._done, self._total = 0, total
        self._start = self._said = time.monotonic()
        disable = True if self._say is not None else None if show is None else not show
        self._bar = (
            None if disable else require("tqdm.auto").tqdm(total=total, disable=disable, unit="file", leave=False)
        )

    def step(self) -> None:
        """Count a file."""
        self._done += 1
        if self._bar is not None:
            self._bar.update()
        now = time.monotonic()
        if self._say is not None and now - self._said >= PERIOD:
            self._said = now
            spent = now - self._start
            left = spent / self._done * (self._total - self._done)
            self._say(f"{self._done} of {self._total} files read, {spent:.0f} s, about {left:.0f} s left")

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
