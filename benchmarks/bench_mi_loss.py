"""mi_loss under pytest-benchmark: `pytest benchmarks/bench_mi_loss.py --benchmark-enable`."""

from __future__ import annotations

import pytest
import torch

from deepclust_ext.benchmark.case import step
from deepclust_ext.benchmark.mi_loss import cases

CASES = cases()


@pytest.mark.parametrize("contestant", ["ours", "product form"])
@pytest.mark.parametrize("case", CASES, ids=[case.label for case in CASES])
def test_mi_loss(benchmark, case, contestant):
    benchmark.group = f"mi_loss {case.label}"
    loss = case.ours if contestant == "ours" else case.opponents[contestant]
    benchmark(step(loss, case.inputs(torch.Generator().manual_seed(0))))
