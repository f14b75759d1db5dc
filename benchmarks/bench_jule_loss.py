"""jule_loss under pytest-benchmark: `pytest benchmarks/bench_jule_loss.py --benchmark-enable`."""

from __future__ import annotations

import pytest
import torch

from deepclust_ext.benchmark.case import step
from deepclust_ext.benchmark.jule_loss import cases

CASES = cases()


@pytest.mark.parametrize("contestant", ["ours", "plain torch"])
@pytest.mark.parametrize("case", CASES, ids=[case.label for case in CASES])
def test_jule_loss(benchmark, case, contestant):
    benchmark.group = f"jule_loss {case.label}"
    loss = case.ours if contestant == "ours" else next(iter(case.opponents.values()))
    benchmark(step(loss, case.inputs(torch.Generator().manual_seed(0))))
