"""The bank under pytest-benchmark: `pytest benchmarks/bench_bank_nll_entropy.py --benchmark-enable`."""

from __future__ import annotations

import pytest
import torch

from deepclust_ext.benchmark.bank_nll_entropy import cases
from deepclust_ext.benchmark.case import step

CASES = cases()


@pytest.mark.parametrize("contestant", ["ours", "attention", "tiles"])
@pytest.mark.parametrize("case", CASES, ids=[f"{case.op} {case.label}" for case in CASES])
def test_bank_nll_entropy(benchmark, case, contestant):
    benchmark.group = f"{case.op} {case.label}"
    loss = case.ours if contestant == "ours" else case.opponents[contestant]
    benchmark.pedantic(step(loss, case.inputs(torch.Generator().manual_seed(0))), rounds=3)
