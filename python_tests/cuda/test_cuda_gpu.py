"""What only a GPU can show: streams, graphs, devices, and that no call waits for the host."""

from __future__ import annotations

import pytest
import torch
from support.losses import gradients, samples
from support.opspecs import OPSPECS

pytestmark = [pytest.mark.cuda, pytest.mark.parametrize("spec", OPSPECS, ids=lambda spec: spec.name)]


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip([*a[0], *a[1]], [*b[0], *b[1]], strict=True))


def test_the_same_bits_on_every_run(spec):
    for sample in samples(spec, torch.float32, "cuda"):
        first = gradients(spec.op, sample)
        assert all(same(first, gradients(spec.op, sample)) for _ in range(5))


def test_work_lands_on_the_current_stream(spec):
    """On another stream it would start before the slow product that makes its input."""
    sample = samples(spec, torch.float32, "cuda")[3]
    want = gradients(spec.op, sample)
    busy = torch.randn(4096, 4096, device="cuda")
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        for _ in range(20):
            busy = busy @ busy * 1e-3
        zero = busy[0, 0] * 0
        late = sample.with_tensors(lambda t: t + torch.nan_to_num(zero))
        got = gradients(spec.op, late)
    stream.synchronize()
    assert same(want, got)


def test_no_call_waits_for_the_host(spec):
    if spec.raw_name == "bank_nll_entropy":
        pytest.skip("waits to hear whether its indices are in the bank")
    prepared = samples(spec, torch.float32, "cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for sample in prepared:
            tensors = [t.clone().requires_grad_() for t in sample.tensors]
            spec.loss(spec.op(*tensors, **sample.kwargs)).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_cuda_graph_records_forward_and_backward(spec):
    sample = samples(spec, torch.float32, "cuda")[3]
    tensors = [t.clone().requires_grad_() for t in sample.tensors]

    def step():
        loss = spec.loss(spec.op(*tensors, **sample.kwargs)).sum()
        return loss, torch.autograd.grad(loss, tensors)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss, grads = step()
    with torch.no_grad():
        for tensor in tensors:
            tensor.copy_(tensor.flip(-2))  # another order of the samples: other gradients
    graph.replay()
    want_loss, want = step()
    assert torch.equal(loss, want_loss)
    assert all(torch.equal(a, b) for a, b in zip(grads, want, strict=True))


def test_another_device_than_the_current_one(spec):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    for sample in samples(spec, torch.float32, "cuda:0")[:4]:
        want = gradients(spec.op, sample)
        got = gradients(spec.op, sample.with_tensors(lambda t: t.to("cuda:1")))
        assert same(want, ([t.to("cuda:0") for t in got[0]], [t.to("cuda:0") for t in got[1]]))


def test_raw_ops_refuse_tensors_of_several_devices(spec):
    ops = spec.raw(samples(spec, torch.float32, "cuda")[0])
    if not ops:
        pytest.skip("made of other ops")
    op, args = ops[-1]
    with pytest.raises(RuntimeError, match=rf"{op._schema.name.split('::')[1]}: '\w+' must be on the device of"):
        op(args[0].cpu(), *args[1:])


def test_agrees_with_the_cpu(spec):
    for sample in samples(spec, torch.float64):
        outputs, grads = gradients(spec.op, sample)
        device_outputs, device_grads = gradients(spec.op, sample.with_tensors(torch.Tensor.cuda))
        for a, b in zip((*outputs, *grads), (*device_outputs, *device_grads), strict=True):
            torch.testing.assert_close(a, b.cpu(), rtol=1e-10, atol=1e-13)
