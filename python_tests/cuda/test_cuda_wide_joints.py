"""Losses of many clusters: the 64-wide product, with vectors of four and without, cuBLAS, and views on no bound."""

from __future__ import annotations

import pytest
import torch
from support.losses import JOINT_LOSSES, assert_matches, gradients
from support.opspecs import Sample, rows
from torch import Tensor

# Off cuBLAS, each a multiple of four: one tile, two with a rest, two. Then five tiles, by cuBLAS for mi_loss.
WIDTHS = [64, 100, 128, 300]


def sample_of(name: str, width: int, dtype: torch.dtype) -> Sample:
    generator = torch.Generator().manual_seed(width)
    if name == "dhog_loss":
        return Sample((rows(generator, 2, 2, 37, width).to(dtype),), {"alpha": 0.3})
    pair = (rows(generator, 140, width).to(dtype), rows(generator, 140, width).to(dtype))
    return Sample(pair, {"lamb": 1.2})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("spec", JOINT_LOSSES, ids=lambda spec: spec.name)
def test_many_clusters(spec, width, dtype, kernels):
    sample = sample_of(spec.name, width, dtype)
    exact = gradients(spec.reference, sample.with_tensors(Tensor.double), 2.0)
    outputs, grads = kernels.loss(spec, sample)
    assert_matches(outputs, grads, *exact, dtype)
    moved_outputs, moved_grads = kernels.loss(spec, sample, offset=True)
    assert all(torch.equal(a, b) for a, b in zip([*outputs, *grads], [*moved_outputs, *moved_grads], strict=True))
