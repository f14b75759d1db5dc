"""Time on many ranks, from the rate of one and the bytes of the model."""

from __future__ import annotations

import math
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


def cases(rates: dict[str, float]) -> list[tuple[str, int, list[list[float]]]]:
    """Rows of the table: what, how many rows, and seconds by link and number of ranks.

    `rates` are a rank's, in multiply-adds per second, at the sizes that were timed.
    """
    found = []
    for rows in ROWS:
        kmeans = [
            [
                seconds(
                    rows * DIM * CLUSTERS,
                    rates["kmeans"],
                    traffic.kmeans_iteration(ranks, CLUSTERS, DIM),
                    ranks,
                    link,
                )
                for ranks in RANKS
            ]
            for link in LINKS
        ]
        found.append((f"an iteration of `kmeans`, K = {CLUSTERS:,}", rows, kmeans))
        bank = [
            [
                seconds(
                    rows * DIM * BATCH,
                    rates["bank_nll_entropy"],
                    traffic.bank_nll_entropy(ranks, BATCH // ranks, 1, DIM),
                    ranks,
                    link,
                )
                for ranks in RANKS
            ]
            for link in LINKS
        ]
        found.append((f"`bank_nll_entropy` with its gradient, batch {BATCH:,}", rows, bank))
        knn = [
            [
                seconds(float(rows) ** 2 * DIM, rates["knn"], traffic.knn(ranks, rows // ranks, DIM), ranks, link)
                for ranks in RANKS
            ]
            for link in LINKS
        ]
        found.append(("`knn`, a graph", rows, knn))
    return found
