"""SIGTERM, SIGHUP and Ctrl-C: finish the step, save once, leave with the exit code a shell expects (143, 129, 130)."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupted(SystemExit):
    """Raised once the state is saved; uncaught, it ends the process with 128 + the signal's number."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.signum).name}; the run was saved and can be resumed"


class StopGuard:
    """Within the block, SIGTERM, SIGHUP and SIGINT set `requested` instead of ending the process.

    The handlers of before come back when the block ends. A second Ctrl-C raises KeyboardInterrupt at once,
    for those who do not want to wait. Python delivers signals to the main thread only: in any other thread,
    or with `enabled=False`, the guard does nothing.

    Parameters
    ----------
    enabled : bool
        False makes the guard a no-op.

    Examples
    --------
    >>> with StopGuard() as guard:
    ...     for step in range(3):
    ...         if guard.requested is not None:
    ...             break
    >>> step
    2
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled and threading.current_thread() is threading.main_thread()
        self.requested: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopGuard:
        if self.enabled:
            for signum in self.SIGNALS:
                # Under nohup a run goes on when the terminal closes.
                if signum == signal.SIGHUP and signal.getsignal(signum) == signal.SIG_IGN:
                    continue
                self._before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for signum, handler in self._before.items():
            # None stands for a handler that was not installed from Python and cannot be put back.
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    def _note(self, signum: int, _frame: FrameType | None) -> None:
        """Note the signal for the loop to see after its step."""
        if self.requested == signal.SIGINT == signum:
            raise KeyboardInterrupt
        self.requested = signum
