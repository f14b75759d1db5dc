"""agglomerate under pytest-benchmark: `pytest benchmarks/bench_agglomerate.py --benchmark-enable`."""

from __future__ import annotations

import pytest

from deepclust_ext.benchmark.agglomerate import cases, peers


@pytest.mark.parametrize("contestant", ["ours", *peers()])
def test_agglomerate(benchmark, contestant):
    (case,) = cases()
    benchmark.group = f"agglomerate {case.label}"
    benchmark.pedantic(case.contestants("cpu")[contestant], rounds=3)
