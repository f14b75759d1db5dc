"""Show how far a run is: a bar in a terminal, or a line of text every few seconds; both fit into 80 columns."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeAlias

from deepclust_ext._optional import require
from deepclust_ext.training.learner import Record

# Seconds between two lines: a run of minutes fills a screen of a log, not more.
PERIOD = 10.0
COLUMNS = 80
# tqdm puts ": " behind the epoch and ", " before the figures.
_BAR = "{desc}{percentage:3.0f}%|{bar}|{remaining}{postfix}"

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
    ...     progress.epoch({"loss": -0.5, "occupancy_entropy": [0.9]}, last=True)  # doctest: +ELLIPSIS
    epoch 1/1, 100 %, loss -0.5000, occupancy 0.90, ...
    """

    def __init__(self, show: Show, *, epochs: int, steps: int, done: int) -> None:
        self.epochs, self.steps, self.done = epochs, steps, done
        self._say = show if callable(show) else None
        self._first, self._start = done, time.monotonic()
        self._said = self._start
        self._figures: dict[str, str] = {}
        self._bar: Any = None
        if self._say is None and show is not False:
            # disable=None is tqdm's "only in a terminal". Where nothing is drawn, it need not be installed.
            options: dict[str, Any] = {"disable": None if show is None else False, "leave": False, "bar_format": _BAR}
            auto = require("tqdm.auto")
            if auto.notebook_tqdm is require("tqdm.std").tqdm:
                # A notebook's bar would take them for pixels.
                options["ncols"] = min(COLUMNS, shutil.get_terminal_size((COLUMNS, 24)).columns)
            self._bar = auto.tqdm(total=epochs * steps, initial=done, **options)
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

    def epoch(self, record: Record, *, last: bool) -> None:
        """Show the figures of an epoch that has ended, by its record; the `last` may come before those planned.

        Scores and churn stay until the next evaluation brings others.
        """
        self._figures |= figures_of(record)
        if self._bar is not None:
            self._bar.set_postfix_str(", ".join(self._figures.values()).replace("occupancy", "occ"), refresh=False)
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
        parts = {
            "epoch": f"epoch {(self.done - 1) // self.steps + 1}/{self.epochs}",
            "share": f"{100 * self.done // total} %",
            **self._figures,
            "spent": duration(spent),
        }
        if self.done < total:
            parts["left"] = f"about {duration(spent / (self.done - self._first) * (total - self.done))} left"
        # What a line too long can do without, first to last.
        for name in ("spent", "share", "churn", "ari", "acc_hungarian"):
            if len(", ".join(parts.values())) > COLUMNS:
                parts.pop(name, None)
        self._say(", ".join(parts.values()))


def figures_of(record: Record) -> dict[str, str]:
    """What progress shows of an epoch: loss, occupancy, and scores, or else churn, where the labels were looked at.

    Of several heads it is the one whose labels of two views agree best, as for the churn in the log; ties to the
    lowest. The occupancy is the entropy as a share of ln K.

    Examples
    --------
    >>> figures_of({"loss": -1.5, "occupancy_entropy": [0.5, 0.75], "nmi_views": [0.1, 0.2]})
    {'loss': 'loss -1.5000', 'occupancy_entropy': 'occupancy 0.75'}
    """
    loss = float(record["loss"])
    found = {"loss": f"loss {loss:.4f}" if abs(loss) < 1000 else f"loss {loss:.3e}"}
    agreement = record.get("nmi_views") or [0.0]
    head = max(range(len(agreement)), key=lambda h: (agreement[h], -h))

    def of_head(values: list[Any]) -> Any:
        return values[head if head < len(values) else 0]

    if record.get("occupancy_entropy"):
        found["occupancy_entropy"] = f"occupancy {of_head(record['occupancy_entropy']):.2f}"
    if record.get("scores"):
        scores = of_head(record["scores"])
        found |= {key: f"{title} {scores[key]:.3f}" for title, key in (("ACC", "acc_hungarian"), ("NMI", "nmi"))}
    elif record.get("churn") is not None:
        found["churn"] = f"churn {record['churn']:.3f}"
    return found


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever is short to read.

    Examples
    --------
    >>> duration(99), duration(600), duration(36000)
    ('99 s', '10 min', '10.0 h')
    """
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5970 else f"{seconds / 3600:.1f} h"
