"""knn under pytest-benchmark: `pytest benchmarks/bench_knn.py --benchmark-enable`."""

from __future__ import annotations

import pytest
import torch

from deepclust_ext.benchmark.case import step
from deepclust_ext.benchmark.knn import cases, peers


@pytest.fixture(scope="module")
def found():
    return cases()


@pytest.mark.parametrize("contestant", ["ours", *peers()])
@pytest.mark.parametrize("number", range(4), ids=["k20", "k1", "k200", "queries"])
def test_knn(benchmark, found, number, contestant):
    case = found[number]
    benchmark.group = f"knn {case.label}"
    call = case.ours if contestant == "ours" else case.opponents[contestant]
    run = step(call, case.inputs(torch.Generator().manual_seed(0)), gradient=False)
    benchmark.pedantic(run, rounds=3)
