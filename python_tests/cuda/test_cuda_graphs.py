"""CUDA graphs: what they record gives the bits of an ordinary call, and what they cannot record says so."""

from __future__ import annotations

import pytest
import torch
from support.captures import REFUSED, SENTENCE
from support.losses import JOINT_LOSSES, gradients
from support.opspecs import Sample, rows

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.filterwarnings("ignore:The CUDA Graph is empty"),  # a refusal leaves it so
]


def wide(name: str) -> Sample:
    """Through cuBLAS for mi_loss."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, 90, 64)] if name == "dhog_loss" else [(700, 512), (700, 512)]
    return Sample(tuple(rows(generator, *shape).to("cuda", torch.float32) for shape in shapes))


@pytest.mark.parametrize("spec", JOINT_LOSSES, ids=lambda spec: spec.name)
def test_a_recorded_wide_joint_has_the_same_bits(spec):
    sample = wide(spec.name)
    tensors = [t.clone().requires_grad_() for t in sample.tensors]

    def step():
        loss = spec.loss(spec.op(*tensors))
        return loss, torch.autograd.grad(loss, tensors, torch.full_like(loss, 2.0))

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss, grads = step()
    for _ in range(2):
        graph.replay()
        outputs, want = gradients(spec.op, sample)
        assert torch.equal(loss, outputs[0])
        assert all(torch.equal(a, b) for a, b in zip(grads, want, strict=True))


@pytest.mark.parametrize("name", REFUSED)
def test_what_waits_for_the_device_refuses_to_be_recorded(name):
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)).cuda()
    labels = torch.arange(40, device="cuda") % 3
    REFUSED[name](x, labels)  # what is set up once is no part of a capture
    with pytest.raises(RuntimeError, match=SENTENCE.format(name.split()[0])), torch.cuda.graph(torch.cuda.CUDAGraph()):
        REFUSED[name](x, labels)
    REFUSED[name](x, labels)  # and afterwards it goes on
    torch.cuda.synchronize()
