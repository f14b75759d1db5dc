"""The CUDA kernels, on the emulator, against the reference: every sample of every op, dtype and schedule."""

from __future__ import annotations

import pytest
import torch
from support.emulated import LOSSES, call, emu
from support.emulator import schedules
from support.losses import DTYPES, TOLERANCE, assert_matches, gradients, samples, upstream_of
from support.opspecs import OPSPECS, Sample
from torch import Tensor

SPECS = [spec for spec in OPSPECS if spec.name in LOSSES]


def test_every_loss_with_kernels_is_emulated():
    assert {spec.name for spec in OPSPECS if spec.raw(samples(spec)[0])} == LOSSES


@pytest.fixture(autouse=True)
def forward_again():
    yield
    emu.set_schedule("forward")


def exact(spec, sample: Sample):
    return gradients(spec.reference, sample.with_tensors(Tensor.double))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_matches_the_reference_and_gives_the_same_bits_in_any_order(spec, dtype, threads):
    threads(1)
    for sample in samples(spec, dtype):
        want, want_grads = exact(spec, sample)
        upstream = upstream_of(want[0]).to(torch.float64 if dtype == torch.float64 else torch.float32)
        first = None
        given = [*sample.tensors, *(t for t in sample.kwargs.values() if isinstance(t, Tensor))]
        for schedule in schedules(dtype == torch.float32, max(t.numel() for t in given) > 20_000):
            emu.set_schedule(*schedule)
            outputs, grads = call(spec.name, sample.tensors, sample.kwargs, upstream)
            assert_matches(outputs, grads, want, want_grads, dtype)
            first = first or (*outputs, *grads)
            assert all(torch.equal(a, b) for a, b in zip(first, (*outputs, *grads), strict=True)), schedule


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_edges(spec):
    """Zeros, one-hot rows, a collapsed batch, tiny and missing numbers: as on the CPU."""
    base = samples(spec)[0].with_tensors(lambda t: torch.zeros_like(t, dtype=torch.float32))
    classes = base.tensors[0].shape[-1]
    one_hot = base.with_tensors(
        lambda t: torch.eye(classes)[torch.arange(t.numel() // classes) % classes].view(t.shape)
    )
    collapsed = base.with_tensors(lambda t: torch.eye(classes)[0].expand(t.shape).contiguous())
    tiny = base.with_tensors(lambda t: t + 1e-22)
    negative = base.with_tensors(lambda t: torch.linspace(-1, 1, t.numel()).view(t.shape))
    for sample in (base, one_hot, collapsed, tiny, negative):
        outputs = spec.outputs(spec.op(*sample.tensors, **sample.kwargs))
        _, want = gradients(spec.op, sample)
        got, grads = call(spec.name, sample.tensors, sample.kwargs, upstream_of(outputs[0]))
        for a, b in zip(got, outputs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        for a, b in zip(grads, want, strict=True):
            assert a.isfinite().all()
            if sample is tiny:
                continue  # what rounding left of the zero gradient of a uniform joint, over a total of 1e-43
            # Counts of either sign cancel, and leave fewer digits.
            digits = 10 if sample is negative else 1
            atol = digits * TOLERANCE[torch.float32][1] * b.abs().max().item()
            torch.testing.assert_close(a, b, rtol=0, atol=atol)
    nan = one_hot.with_tensors(lambda t: t.index_fill(t.dim() - 2, torch.tensor(1), float("nan")))
    outputs, grads = call(spec.name, nan.tensors, nan.kwargs, upstream_of(outputs[0]))
    # A query of the bank's losses stands for itself.
    assert (outputs[0][1] if spec.name.startswith("bank_") else outputs[0]).isnan().all()
    assert all(grad.isnan().any() for grad in grads)
