"""The searches on a GPU: against the reference and the CPU, streams, and the errors that values cause."""

from __future__ import annotations

import pytest
import torch
from support.opspecs import SEARCH_SPECS
from support.searches import DTYPES, run, same, samples
from torch import Tensor

# All of them: on a GPU without the CUDA library these tests fail, where a choice by what is registered would skip.
pytestmark = [pytest.mark.cuda, pytest.mark.parametrize("spec", SEARCH_SPECS, ids=lambda spec: spec.name)]


def on_gpu(sample):
    return sample.placed("cuda")


def on_cpu(result):
    """The result's tensors on the CPU, those of its history included."""
    if isinstance(result, Tensor):
        return result.cpu()
    if isinstance(result, tuple):
        return type(result)(*(on_cpu(part) for part in result))
    return [on_cpu(part) for part in result]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_matches_reference_on_a_gpu(spec, dtype):
    for sample in samples(spec, dtype):
        exact = spec.reference(*sample.with_tensors(Tensor.double).tensors, **sample.kwargs)
        spec.agrees(sample, on_cpu(run(spec, on_gpu(sample))), exact)


def test_the_same_bits_on_every_run(spec):
    for sample in samples(spec):
        first = run(spec, on_gpu(sample))
        assert all(same(first, run(spec, on_gpu(sample))) for _ in range(3))


def test_strided_inputs_give_the_same_bits(spec):
    for sample in map(on_gpu, samples(spec)):
        strided = sample.with_tensors(lambda t: t.transpose(-1, -2).contiguous().transpose(-1, -2))
        shifted = sample.with_tensors(lambda t: torch.cat([t.new_zeros(1), t.reshape(-1)])[1:].view(t.shape))
        want = run(spec, sample)
        assert same(run(spec, strided), want)
        assert same(run(spec, shifted), want)


def test_work_lands_on_the_current_stream(spec):
    """On another stream it would start before the slow product that makes its input."""
    sample = on_gpu(samples(spec)[1])
    want = run(spec, sample)
    busy = torch.randn(4096, 4096, device="cuda")
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        for _ in range(20):
            busy = busy @ busy * 1e-3
        zero = torch.nan_to_num(busy[0, 0] * 0)
        got = run(spec, sample.with_tensors(lambda t: t + zero))
    stream.synchronize()
    assert same(want, got)


def test_a_row_that_is_not_finite_is_named(spec):
    sample = on_gpu(samples(spec)[0])
    first, *rest = (t.clone() for t in sample.tensors)
    first[11, 1] = first[29, 0] = float("nan")
    with pytest.raises(ValueError, match=f"{spec.name}: 'x' must be finite, got NaN or infinity in row 11"):
        spec.op(first, *rest, **sample.kwargs)


def test_raw_ops_refuse_tensors_of_several_devices(spec):
    op, args = spec.raw(on_gpu(samples(spec)[0]))[0]
    if not isinstance(args[1], Tensor):
        pytest.skip("one tensor alone")
    with pytest.raises(RuntimeError, match=rf"{spec.name}: '\w+' must be on the device of"):
        op(args[0], args[1].cpu(), *args[2:])
