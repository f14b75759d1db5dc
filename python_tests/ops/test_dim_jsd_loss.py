"""dim_jsd_loss: the reference in float64, its gradients, the memory it promises, transforms, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from support.losses import DTYPES, assert_matches, gradients
from support.opspecs import Sample
from torch.utils._python_dispatch import TorchDispatchMode

from deepclust_ext import dim_jsd_loss, reference

# The last two take more than one part of the maps, the very last a part that is not full.
SIZES = [(2, 1, 1), (3, 5, 4), (7, 2, 3), (5, 1, 9), (64, 3, 8), (31, 2, 16), (53, 11, 7)]


def inputs(n=7, places=2, units=3, dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(n + places + units)
    codes = torch.randn(n, units, generator=generator, dtype=torch.float64) * scale
    maps = torch.randn(n, places, units, generator=generator, dtype=torch.float64) * scale
    return codes.to(dtype), maps.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_matches_reference(size, dtype, scale):
    sample = Sample(inputs(*size, dtype, scale))
    exact = gradients(reference.dim_jsd_loss, sample.with_tensors(torch.Tensor.double))
    assert_matches(*gradients(dim_jsd_loss, sample), *exact, dtype)


def test_the_definition_spelled_out():
    codes, maps = inputs(3, 2, 4)
    positive = negative = 0.0
    for i in range(3):
        for j in range(3):
            for place in range(2):
                score = float(codes[i] @ maps[j, place])
                if i == j:
                    positive += math.log1p(math.exp(-score)) / 6
                else:
                    negative += math.log1p(math.exp(score)) / 12
    assert dim_jsd_loss(codes, maps).item() == pytest.approx(positive + negative, rel=1e-12)


@pytest.mark.parametrize("size", [(2, 1, 1), (7, 2, 3), (29, 2, 2)], ids=str)
def test_gradcheck(size):
    assert torch.autograd.gradcheck(dim_jsd_loss, [t.requires_grad_() for t in inputs(*size)])


def test_a_code_that_fits_its_own_map_alone_is_rewarded():
    codes = 6 * torch.eye(5)
    assert dim_jsd_loss(codes, codes[:, None]) < 2 * math.log(2)
    assert dim_jsd_loss(codes, codes.roll(1, 0)[:, None]) > 2 * math.log(2)
    moved = codes.clone().requires_grad_()
    dim_jsd_loss(moved, codes[:, None]).backward()
    assert (moved.grad.diagonal() < 0).all()


def test_scores_of_any_size_stay_finite():
    for scale in (1e-20, 1e4, 1e15):
        codes, maps = (t.requires_grad_() for t in inputs(9, 4, 3, torch.float32, scale))
        loss = dim_jsd_loss(codes, maps)
        loss.backward()
        assert loss.isfinite()
        assert codes.grad.isfinite().all()
        assert maps.grad.isfinite().all()


class Largest(TorchDispatchMode):
    """The entries of the largest tensor that a block makes, views of the inputs aside."""

    entries = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for each in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(each, torch.Tensor):
                self.entries = max(self.entries, each.numel())
        return result


@pytest.mark.parametrize(("n", "places", "units"), [(60, 16, 2), (40, 40, 3), (100, 1, 2), (2, 50, 2)])
def test_the_scores_are_never_there_at_once(n, places, units):
    codes, maps = (t.requires_grad_() for t in inputs(n, places, units))
    with Largest() as seen:
        dim_jsd_loss(codes, maps).backward()
    assert seen.entries <= max(4 * n * (n + places), maps.numel())


def test_gradients_are_taken_where_they_are_wanted():
    codes, maps = inputs()
    both = gradients(dim_jsd_loss, Sample((codes, maps)), 0.5)[1]
    for i in range(2):
        tensors = [codes.clone(), maps.clone()]
        tensors[i].requires_grad_()
        (0.5 * dim_jsd_loss(*tensors)).backward()
        assert torch.equal(tensors[i].grad, both[i])
        assert tensors[1 - i].grad is None
    with torch.no_grad():
        assert not dim_jsd_loss(codes.requires_grad_(), maps).requires_grad


def test_mixed_dtypes_are_promoted_and_gradients_keep_theirs():
    codes, maps = inputs(dtype=torch.float32)
    codes, maps = codes.half().requires_grad_(), maps.double().requires_grad_()
    loss = dim_jsd_loss(codes, maps)
    loss.backward()
    assert (loss.dtype, codes.grad.dtype, maps.grad.dtype) == (torch.float64, torch.float16, torch.float64)


def test_autocast_keeps_float32_products():
    codes, maps = inputs(dtype=torch.float32)
    want = gradients(dim_jsd_loss, Sample((codes, maps)))
    with torch.autocast("cpu", torch.bfloat16):
        got = gradients(dim_jsd_loss, Sample((codes, maps)))
    assert all(torch.equal(a, b) for a, b in zip((*want[0], *want[1]), (*got[0], *got[1]), strict=True))


def test_strided_inputs():
    codes, maps = inputs(6, 4, 5)
    want = gradients(dim_jsd_loss, Sample((codes, maps)))
    strided = (codes.T.contiguous().T, maps.mT.contiguous().mT)
    got = gradients(dim_jsd_loss, Sample(strided))
    for a, b in zip((*want[0], *want[1]), (*got[0], *got[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)


def test_torch_func_and_vmap():
    codes, maps = inputs(31, 2, 3)
    want = gradients(dim_jsd_loss, Sample((codes, maps)), 1.0)[1]
    got = torch.func.grad(dim_jsd_loss, (0, 1))(codes, maps)
    for a, b in zip(want, got, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)
    stacked = torch.stack([codes, codes.flip(0)])
    mapped = torch.func.vmap(torch.func.grad(dim_jsd_loss, (0, 1)), in_dims=(0, None))(stacked, maps)
    for i in range(2):
        for a, b in zip(mapped, torch.func.grad(dim_jsd_loss, (0, 1))(stacked[i], maps), strict=True):
            torch.testing.assert_close(a[i], b, rtol=1e-12, atol=1e-15)


@pytest.mark.slow
def test_compile_fullgraph():
    codes, maps = inputs(dtype=torch.float32)
    compiled = torch.compile(lambda a, b: dim_jsd_loss(2 * a, b), fullgraph=True)
    want = gradients(lambda a, b: dim_jsd_loss(2 * a, b), Sample((codes, maps)))
    got = gradients(compiled, Sample((codes, maps)))
    for a, b in zip((*want[0], *want[1]), (*got[0], *got[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_a_second_derivative_and_forward_mode_are_refused():
    codes, maps = inputs()
    codes.requires_grad_()
    (grad,) = torch.autograd.grad(dim_jsd_loss(codes, maps), codes, create_graph=True)
    with pytest.raises(RuntimeError, match=r"dim_jsd_loss: a second derivative is not implemented"):
        grad.square().sum().backward()
    with pytest.raises(NotImplementedError, match="dim_jsd_loss: forward-mode"):
        torch.func.jacfwd(lambda t: dim_jsd_loss(t, maps))(codes.detach())


@pytest.mark.parametrize(
    ("codes", "maps", "error", "message"),
    [
        (torch.zeros(1, 3), torch.zeros(1, 2, 3), ValueError, "'codes' must be of at least 2 images, got 1"),
        (torch.zeros(0, 3), torch.zeros(0, 2, 3), ValueError, "'codes' must be of at least 2 images, got 0"),
        (torch.zeros(4), torch.zeros(4, 2, 3), ValueError, r"'codes' must have shape \(B, u\)"),
        (torch.zeros(4, 3), torch.zeros(4, 3), ValueError, r"'maps' must have shape \(4, L, 3\)"),
        (torch.zeros(4, 3), torch.zeros(5, 2, 3), ValueError, r"'maps' must have shape \(4, L, 3\)"),
        (torch.zeros(4, 3), torch.zeros(4, 2, 2), ValueError, r"'maps' must have shape \(4, L, 3\)"),
        (torch.zeros(4, 3), torch.zeros(4, 0, 3), ValueError, r"'maps' must have shape \(4, L, 3\) with L >= 1"),
        (torch.zeros(4, 3).long(), torch.zeros(4, 2, 3), TypeError, "'codes' must be float16, bfloat16"),
        (torch.zeros(4, 3), None, TypeError, "'maps' must be a torch.Tensor"),
        (torch.zeros(4, 3), torch.zeros(4, 2, 3, device="meta"), ValueError, "'maps' must be on codes's device"),
    ],
)
def test_bad_arguments(codes, maps, error, message):
    with pytest.raises(error, match=f"dim_jsd_loss: {message}"):
        dim_jsd_loss(codes, maps)
