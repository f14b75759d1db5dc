"""Work on many files at once, in order, with so much memory as is set aside and no more."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

# What images that are being decoded may take together; a larger one is decoded alone.
DECODE_BYTES = 2**30


class Budget:
    """Bytes that several threads share.

    Examples
    --------
    >>> budget = Budget(10)
    >>> with budget.reserve(100):
    ...     budget.used
    100
    """

    def __init__(self, total: int) -> None:
        self.total, self.used = total, 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Wait until `size` bytes are free, or all of them, and hold them for the block."""
        with self._changed:
            self._changed.wait_for(lambda: self.used == 0 or self.used + size <= self.total)
            self.used += size
        try:
            yield
        finally:
            with self._changed:
                self.used -= size
                self._changed.notify_all()


def in_order(work: Callable[[T], R], items: Iterable[T], *, ahead: int = 0) -> Iterator[R]:
    """Yield `work(item)` of every item, in order, from threads on all cores.

    Few are begun before they are asked for, or as many as `ahead`: those who ask for many at once have them ready then.

    Pillow's decoders let other threads run while they work, so processes would gain nothing.
    """
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) >= max(2 * threads + 2, ahead):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
