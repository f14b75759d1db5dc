"""kmeans under pytest-benchmark: `pytest benchmarks/bench_kmeans.py --benchmark-enable`."""

from __future__ import annotations

import pytest

from deepclust_ext.benchmark.kmeans import N_ITER, cases, peers

CASES = [case for case in cases() if "4000" not in case.label]


@pytest.mark.parametrize("contestant", ["ours", "torch", *peers(N_ITER)])
@pytest.mark.parametrize("case", CASES, ids=[case.label for case in CASES])
def test_kmeans(benchmark, case, contestant):
    benchmark.group = f"kmeans {case.label}"
    benchmark.pedantic(case.contestants("cpu")[contestant], rounds=3, iterations=1, warmup_rounds=1)
