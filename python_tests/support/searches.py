"""What the tests of every search share: samples in a dtype, one call, and whether two results are the same bits."""

from __future__ import annotations

import torch
from torch import Tensor

from support.opspecs import Sample, SearchSpec

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def samples(spec: SearchSpec, dtype: torch.dtype = torch.float32) -> list[Sample]:
    generator = torch.Generator().manual_seed(0)
    return [s.with_tensors(lambda t: t.to(dtype)) for s in spec.samples(generator)]


def run(spec: SearchSpec, sample: Sample):
    return spec.op(*sample.tensors, **sample.kwargs)


def tensors(result) -> list[Tensor]:
    """Every tensor of a result, those of its history included."""
    if isinstance(result, Tensor):
        return [result]
    return [t for part in result for t in tensors(part)] if isinstance(result, list | tuple) else []


def same(first, second) -> bool:
    pairs = list(zip(tensors(first), tensors(second), strict=True))
    assert pairs
    return all(torch.equal(a, b) for a, b in pairs)
