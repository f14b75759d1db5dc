"""What the tests of every loss share: samples in a dtype, outputs with gradients, a tolerance for each dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from support.opspecs import OPSPECS, OpSpec, Sample

# (of the loss, of the gradient relative to its largest entry). Half inputs are rounded before both sides see them, so
# the loss is as exact as float32's; their gradient is rounded once to 11 or 8 bits. float32 gradients of a weak
# dependence are small differences of logarithms of size 5, hence 1e-4.
TOLERANCE = {
    torch.float64: (1e-13, 1e-11),
    torch.float32: (2e-6, 1e-4),
    torch.float16: (2e-6, 2e-3),
    torch.bfloat16: (2e-6, 8e-3),
}
DTYPES = list(TOLERANCE)
# Of probabilities: their sizes are numbers of clusters.
JOINT_LOSSES = [spec for spec in OPSPECS if spec.name in ("mi_loss", "dhog_loss")]


def samples(spec: OpSpec, dtype: torch.dtype = torch.float64, device: str = "cpu") -> list[Sample]:
    generator = torch.Generator().manual_seed(0)
    return [s.placed(device).with_tensors(lambda t: t.to(dtype)) for s in spec.samples(generator)]


def upstream_of(loss: Tensor, weight: float = 2.0) -> Tensor:
    """An upstream gradient that is not 1 and differs between batch items."""
    return weight + torch.arange(loss.numel(), dtype=loss.dtype, device=loss.device).view(loss.shape)


def gradients(call, sample: Sample, weight: float = 2.0, place=torch.clone) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """Outputs, and gradients under an upstream gradient of many values; `place` copies the inputs."""
    tensors = [place(t.detach()).requires_grad_() for t in sample.tensors]
    result = call(*tensors, **sample.kwargs)
    outputs = tuple(result) if isinstance(result, tuple) else (result,)
    grads = torch.autograd.grad(outputs[0], tensors, upstream_of(outputs[0], weight))
    return tuple(o.detach() for o in outputs), list(grads)


def assert_matches(outputs, grads, exact_outputs, exact_grads, dtype: torch.dtype) -> None:
    """Outputs and gradients of inputs of `dtype` are the exact ones, within its tolerance."""
    loss_tolerance, grad_tolerance = TOLERANCE[dtype]
    for output, exact in zip(outputs, exact_outputs, strict=True):
        assert output.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(output.double(), exact, rtol=loss_tolerance, atol=loss_tolerance)
    for grad, exact in zip(grads, exact_grads, strict=True):
        assert grad.dtype == dtype
        scale = exact.abs().max().item() if exact.numel() else 0.0
        # Gradients of many samples are small: float16 rounds those near 0 to its subnormal spacing.
        spacing = torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
        torch.testing.assert_close(grad.double(), exact, rtol=0, atol=grad_tolerance * scale + spacing)
