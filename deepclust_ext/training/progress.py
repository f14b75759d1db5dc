"""Show how far a run is: a bar in a terminal, or a line of text every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeAlias

from deepclust_ext._optional import require

# Seconds between two lines: a run of minutes fills a screen of a log, not more.
PERIOD = 10.0

Show: TypeAlias = "bool | Callable[[str], object] | None"


class Progress:
    """Counts the steps of a run and shows them.

    Parameters
    ----------
    show : bool, None or callable
        A bar, no bar, or (None) a bar in a terminal only; a callable gets a line of text every `PERIOD` seconds
        and one at the end.
    epochs, steps : int
        Epochs of the run, and steps of an epoch.
    done : int
        Steps that were done before.

    Examples
    --------
    >>> with Progress(print, epochs=1, steps=2, done=1) as progress:
    ...     progress.step()
    ...     progress.epoch(-0.5, last=True)  # doctest: +ELLIPSIS
    epoch 1/1, 100 %, loss -0.5000, ...
    """

    def __init__(self, show: Show, *, epochs: int, steps: int, done: int) -> None:
        self.epochs, self.steps, self.done = epochs, steps, done
        self._say = show if callable(show) else None
        self._first, self._start = done, time.monotonic()
        self._said = self._start
        self._loss = ""
        self._bar: Any = None
        if self._say is None and show is not False:
            # disable=None is tqdm's "only in a terminal". Where nothing is drawn, it need not be installed.
            options = {"disable": None if show is None else False, "unit": "step", "leave": False}
            self._bar = require("tqdm.auto").tqdm(total=epochs * steps, initial=done, **options)
        self._describe()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def step(self) -> None:
        """Count a step."""
        self.done += 1
        if self._bar is not None:
            self._bar.update()
        # The line of the last step is left to `epoch`, which knows the loss.
        if self.done < self.epochs * self.steps and time.monotonic() - self._said >= PERIOD:
            self._say_line()

    def epoch(self, loss: float, *, last: bool) -> None:
        """Show the mean loss of an epoch that has ended; the `last` may come before those that were planned."""
        self._loss = f", loss {loss:.4f}"
        if self._bar is not None:
            self._bar.set_postfix(loss=f"{loss:.4f}")
        self._describe()
        if last:
            self._say_line()

    def _describe(self) -> None:
        """Write the epoch in front of the bar."""
        if self._bar is not None:
            self._bar.set_description(f"epoch {min(self.done // self.steps + 1, self.epochs)}/{self.epochs}")

    def _say_line(self) -> None:
        """Hand a line to the callable, if there is one."""
        self._said = time.monotonic()
        if self._say is None:
            return
        total, spent = self.epochs * self.steps, self._said - self._start
        left = spent / (self.done - self._first) * (total - self.done)
        more = f", about {left:.0f} s left" if self.done < total else ""
        epoch = (self.done - 1) // self.steps + 1
        self._say(f"epoch {epoch}/{self.epochs}, {100 * self.done // total} %{self._loss}, {spent:.0f} s{more}")
