"""mi_loss at the edges: exact zeros, degenerate batches, known values, and errors."""

from __future__ import annotations

import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.opspecs import rows

from deepclust_ext import iic_loss, mi_loss, reference

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def nested(p):
    with warnings.catch_warnings():  # torch says that nested tensors are a prototype
        warnings.simplefilter("ignore", UserWarning)
        return torch.nested.nested_tensor([p, p])


def loss_and_grads(p, q, **kwargs):
    p, q = p.clone().requires_grad_(), q.clone().requires_grad_()
    loss = mi_loss(p, q, **kwargs)
    return (loss.detach(), *torch.autograd.grad(loss.sum(), (p, q)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("classes", [1, 2, 10, 16, 17, 100])
def test_agreeing_balanced_labels_reach_the_bound(dtype, classes):
    labels = torch.eye(classes, dtype=dtype).repeat(3, 1)
    loss, grad, _ = loss_and_grads(labels, labels)
    assert loss.item() == pytest.approx(-math.log(classes), abs=1e-6)
    assert grad.isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_collapsed_batch_has_loss_zero_and_finite_gradient(dtype):
    collapsed = torch.zeros(50, 7, dtype=dtype)
    collapsed[:, 3] = 1
    loss, grad_p, grad_q = loss_and_grads(collapsed, collapsed)
    assert loss.item() == 0
    assert grad_p.isfinite().all()
    assert grad_q.isfinite().all()


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("shape", [(0, 5), (3, 0, 5), (6, 5)])
def test_empty_batch_and_zero_rows_give_zero(shape, symmetric):
    zeros = torch.zeros(shape)
    loss, grad_p, grad_q = loss_and_grads(zeros, zeros, symmetric=symmetric)
    assert torch.equal(loss, torch.zeros(shape[:-2]))
    assert not grad_p.any()
    assert not grad_q.any()


def test_an_exactly_zero_entry_passes_no_gradient():
    p = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    q = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.5, 0.5]])
    _, grad_p, _ = loss_and_grads(p, q, symmetric=False)
    # Cluster 0 of p meets only cluster 1 of q, in the first sample: the joint's entries (0, 0) and (0, 2) are zero, and
    # so is column 0. What reaches p[1, 0] goes through (0, 1) alone.
    value = math.log(0.5) - math.log(0.5) - math.log(0.75)
    loss = mi_loss(p, q, symmetric=False).item()
    assert grad_p[1, 0].item() == pytest.approx(0.5 * (-value - loss) / 2, abs=1e-6)


def test_joints_far_below_the_smallest_normal_number_stay_finite():
    tiny = torch.full((3, 4), 1e-22)
    for values in loss_and_grads(tiny, tiny):
        assert values.isfinite().all()


def test_negative_entries_of_the_joint_count_as_zero(generator):
    p, q = (torch.randn(30, 5, generator=generator) for _ in range(2))
    tensors = [t.double().requires_grad_() for t in (p, q)]
    exact = reference.mi_loss(*tensors)
    loss, *grads = loss_and_grads(p, q)
    assert loss.item() == pytest.approx(exact.item(), abs=1e-5)
    for grad, want in zip(grads, torch.autograd.grad(exact, tensors), strict=True):
        torch.testing.assert_close(grad.double(), want, rtol=0, atol=1e-5 * want.abs().max().item())


def test_tiny_totals_keep_the_gradient_in_double(generator):
    p = rows(generator, 30, 5)
    _, want, _ = loss_and_grads(p, p.flip(0))
    _, grad, _ = loss_and_grads(p * 1e-30, p.flip(0) * 1e-30)
    torch.testing.assert_close(grad * 1e-30, want, rtol=1e-9, atol=0)


def test_nan_shows():
    p = torch.full((4, 3), 1 / 3)
    p[2, 1] = float("nan")
    assert mi_loss(p, torch.full((4, 3), 1 / 3)).isnan()
    assert reference.mi_loss(p, torch.full((4, 3), 1 / 3)).isnan()


@pytest.mark.parametrize("number", [1, np.float32(1), np.float64(1), np.int64(1)], ids=lambda x: type(x).__name__)
def test_any_real_number_weighs(number):
    p = torch.eye(3)
    assert torch.equal(mi_loss(p, p, lamb=number), mi_loss(p, p))


def test_half_inputs_do_not_underflow():
    """An epsilon of 2e-16, as the method's first code used, is 0 in half precision and makes log 0."""
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float16, torch.bfloat16):
        sharp = rows(generator, 300, 10, sharpness=30.0).to(dtype)
        for values in loss_and_grads(sharp, sharp.flip(0)):
            assert values.isfinite().all()


def test_a_million_rows_keep_their_precision():
    labels = torch.eye(8).repeat(125_000, 1)
    assert mi_loss(labels, labels).item() == pytest.approx(-math.log(8), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 40),
    classes=st.integers(1, 20),
    lamb=st.floats(0, 2),
    seed=st.integers(0, 2**31),
    sharpness=st.floats(0.1, 20),
)
def test_properties(n, classes, lamb, seed, sharpness):
    generator = torch.Generator().manual_seed(seed)
    p, q = rows(generator, n, classes, sharpness=sharpness), rows(generator, n, classes, sharpness=sharpness)
    loss = mi_loss(p, q, lamb=lamb)
    order, relabel = torch.randperm(n, generator=generator), torch.randperm(classes, generator=generator)
    torch.testing.assert_close(mi_loss(q, p, lamb=lamb), loss, rtol=1e-9, atol=1e-12)  # symmetric in its arguments
    torch.testing.assert_close(mi_loss(p[order], q[order], lamb=lamb), loss, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(mi_loss(p[:, relabel], q[:, relabel], lamb=lamb), loss, rtol=1e-9, atol=1e-12)
    bound = -math.log(classes) - 1e-12
    assert bound <= iic_loss(p, q).item() <= 1e-12


def test_mixed_dtypes_are_promoted_and_leading_dimensions_broadcast():
    generator = torch.Generator().manual_seed(1)
    p, q = rows(generator, 3, 20, 4), rows(generator, 20, 4)
    p32 = p.float().requires_grad_()
    loss = mi_loss(p32, q)
    assert loss.dtype == torch.float64
    assert loss.shape == (3,)
    (grad,) = torch.autograd.grad(loss.sum(), p32)
    assert grad.dtype == torch.float32
    torch.testing.assert_close(loss[1], mi_loss(p32[1].double(), q))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: mi_loss([[1.0]], p), TypeError, r"mi_loss: 'p' must be a torch.Tensor, got list"),
        (lambda p: mi_loss(p, p.long()), TypeError, r"mi_loss: 'q' must be float16, .* got torch.int64"),
        (lambda p: mi_loss(p, p.to_sparse()), TypeError, r"mi_loss: 'q' must be a dense tensor"),
        (
            lambda p: mi_loss(p[0], p),
            ValueError,
            r"mi_loss: 'p' must have shape \(\.\.\., n, C\), got \(3,\)",
        ),
        (lambda p: mi_loss(p, p[:4]), ValueError, r"mi_loss: 'q' must have p's 6 samples, got 4"),
        (lambda p: mi_loss(p, p[:, :2]), ValueError, r"'q' must have p's 3 classes .* pass symmetric=False"),
        (lambda p: mi_loss(p[:, :0], p[:, :0]), ValueError, r"at least one class"),
        (
            lambda p: mi_loss(p.expand(2, 6, 3), p.expand(3, 6, 3)),
            ValueError,
            r"leading dimensions that broadcast",
        ),
        (lambda p: mi_loss(p, p.to("meta")), ValueError, r"mi_loss: 'q' must be on p's device cpu, got meta"),
        (lambda p: mi_loss(p, p, lamb="1"), TypeError, r"mi_loss: 'lamb' must be a number, got '1'"),
        (lambda p: mi_loss(p, p, lamb=float("nan")), ValueError, r"mi_loss: 'lamb' must be finite, got nan"),
        (lambda p: mi_loss(p, p, lamb=10**400), ValueError, r"mi_loss: 'lamb' must be finite, got 1000"),
        (lambda p: mi_loss(p, p, symmetric=None), TypeError, r"'symmetric' must be True or False, got None"),
        (lambda p: mi_loss(p, p, symmetric="no"), TypeError, r"'symmetric' must be True or False, got 'no'"),
        (lambda p: mi_loss(nested(p), p), TypeError, r"'p' must be a dense tensor, got a nested one"),
    ],
)
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call(torch.full((6, 3), 1 / 3))


def test_nothing_of_size_n_c_c_is_allocated():
    """n C^2 floats would be 6.4 GB here; the inputs and their gradients are 128 MB."""
    code = """
import resource, torch, deepclust_ext
p = torch.full((40_000, 200), 1 / 200).requires_grad_()
q = torch.full((40_000, 200), 1 / 200).requires_grad_()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
deepclust_ext.mi_loss(p, q).backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(output) < 128 + 64


def test_batches_without_samples():
    """Several leading dimensions: any number of them fits no elements."""
    p = torch.zeros(2, 3, 0, 4, requires_grad=True)
    for loss in (mi_loss(p, torch.zeros(2, 3, 0, 5), symmetric=False), mi_loss(p, p), mi_loss(p[:0], p[:0])):
        assert torch.equal(loss, torch.zeros(loss.shape))
    mi_loss(p, p).sum().backward()
    assert p.grad.shape == p.shape
