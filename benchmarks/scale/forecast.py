"""Time on many ranks, from the rate of one and the bytes of the model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.scale import traffic
from benchmarks.scale.traffic import Traffic


@dataclass(frozen=True)
class Link:
    """What connects two ranks."""

    name: str
    bytes_per_second: float
    latency: float  # of a message, in seconds


LINKS = (Link("10 GbE", 1.25e9, 50e-6), Link("200 Gb/s", 25e9, 5e-6))
RANKS = (8, 64, 512)
ROWS = (10**8, 10**9)
DIM, CLUSTERS, BATCH = 128, 1000, 4096


def seconds(work: float, rate: float, sent: Traffic, ranks: int, link: Link) -> float:
    """Work is shared evenly, then bytes arrive; a collective has log2 R messages one after another."""
    messages = sent.calls * math.log2(ranks)
    return work / ranks / rate + sent.received / link.bytes_per_second + messages * link.latency


def cases(rates: dict[str, float]) -> list[tuple[str, int, list[float]]]:
    """Rows of the table: what, how many rows, and seconds on each link and number of ranks.

    `rates` are a rank's, in multiply-adds per second, at the sizes that were timed.
    """
    found = []
    for rows in ROWS:
        # Title, multiply-adds, and what is sent on so many ranks.
        ops: dict[str, tuple[str, float, Callable[[int], Traffic]]] = {
            "kmeans": (
                f"an iteration of `kmeans`, K = {CLUSTERS:,}",
                rows * DIM * CLUSTERS,
                lambda ranks: traffic.kmeans_iteration(ranks, CLUSTERS, DIM),
            ),
            "bank_nll_entropy": (
                f"`bank_nll_entropy` with its gradient, batch {BATCH:,}",
                rows * DIM * BATCH,
                lambda ranks: traffic.bank_nll_entropy(ranks, BATCH // ranks, 1, DIM),
            ),
            "knn": (
                "`knn`, a graph",
                float(rows) ** 2 * DIM,
                lambda ranks, rows=rows: traffic.knn(ranks, rows // ranks, DIM),
            ),
        }
        for name, (title, work, sent) in ops.items():
            times = [seconds(work, rates[name], sent(ranks), ranks, link) for link in LINKS for ranks in RANKS]
            found.append((title, rows, times))
    return found
