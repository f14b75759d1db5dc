"""What a few bad rows cost `knn`: processor time beside that of plain data, one thread, turns that alternate.

python benchmarks/bad_rows.py
"""

from __future__ import annotations

import statistics
import time

import torch

from deepclust_ext import knn

TURNS = 5


def cases():
    """Names, whose first word says what a case is compared with, and calls; normal data of 64 columns."""
    generator = torch.Generator().manual_seed(0)

    def normal(n):
        return torch.randn(n, 64, generator=generator)

    plain, large, queries = normal(8000), normal(20_000), normal(2000)
    far, groups, zero, zeros = plain.clone(), plain.clone(), plain.clone(), large.clone()
    far[17] = 1e6
    groups[4000:] += 30
    zero[::2] = 0
    zeros[::2] = 0
    copies = large[torch.randint(2000, (20_000,), generator=generator)].contiguous()
    graphs = {
        "8,000: plain": plain,
        "8,000: one row of 1e6": far,
        "8,000: two groups, 30 apart": groups,
        "8,000: half of them zero": zero,
        "20,000: plain": large,
        "20,000: copies of 2,000": copies,
        "20,000: half of them zero": zeros,
    }
    found = {name: (lambda x=x: knn(x, 10)) for name, x in graphs.items()}
    for name, x in (("plain", plain), ("one row of 1e6", far)):
        found[f"query: {name}"] = lambda x=x: knn(x, 10, query=queries)
        found[f"inner: {name}"] = lambda x=x: knn(x, 10, metric="inner")
    return found


def main():
    torch.set_num_threads(1)
    calls = cases()
    spent = {name: [] for name in calls}
    for turn in range(TURNS + 1):
        for name, call in calls.items():
            start = time.thread_time()
            call()
            if turn:
                spent[name].append(time.thread_time() - start)
    medians = {name: statistics.median(times) for name, times in spent.items()}
    for name, seconds in medians.items():
        plain = medians[f"{name.split(':')[0]}: plain"]
        print(f"{name:30}{1e3 * seconds:8.1f} ms {seconds / plain:6.2f}x")


if __name__ == "__main__":
    main()
