"""gmm_kl_loss: torch's own divergences, the reference in float64, gradients, far-off classes, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from support.losses import DTYPES, TOLERANCE, assert_matches, gradients
from support.opspecs import Sample
from torch import distributions

from deepclust_ext import gmm_kl_loss, reference

NAMES = ("mean", "log_variance", "probs", "prior_means", "prior_log_variances")


def inputs(n=6, d=4, k=3, dtype=torch.float64, sample=False):
    generator = torch.Generator().manual_seed(n + d + k)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    tensors = [normal(n, d), normal(n, d) - 1, normal(n, k).softmax(1), 2 * normal(k, d), normal(k, d)]
    return (*tensors, normal(n, d)) if sample else tuple(tensors)


def loss(*tensors):
    return gmm_kl_loss(*tensors[:5], sample=tensors[5] if len(tensors) > 5 else None)


def exact(*tensors):
    return reference.gmm_kl_loss(*tensors[:5], sample=tensors[5] if len(tensors) > 5 else None)


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("size", [(1, 1, 1), (6, 4, 3), (17, 5, 1), (3, 31, 40)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_matches_reference(size, dtype, sample):
    call = Sample(inputs(*size, dtype, sample))
    assert_matches(*gradients(loss, call), *gradients(exact, call.with_tensors(torch.Tensor.double)), dtype)


def test_it_is_the_weighted_divergence_of_torchs_distributions():
    mean, log_variance, probs, prior_means, prior_log_variances = inputs()
    want = 0.0
    for i in range(6):
        own = distributions.Normal(mean[i], (0.5 * log_variance[i]).exp())
        for y in range(3):
            prior = distributions.Normal(prior_means[y], (0.5 * prior_log_variances[y]).exp())
            want += float(probs[i, y] * distributions.kl_divergence(own, prior).sum()) / (6 * 4)
    assert loss(*inputs()).item() == pytest.approx(want, rel=1e-12)


def test_at_a_sample_it_is_the_difference_of_log_densities():
    mean, log_variance, probs, prior_means, prior_log_variances, z = inputs(sample=True)
    own = distributions.Normal(mean, (0.5 * log_variance).exp()).log_prob(z).sum(1)
    priors = distributions.Normal(prior_means, (0.5 * prior_log_variances).exp()).log_prob(z[:, None]).sum(2)
    want = (probs * (own[:, None] - priors)).sum(1).mean() / 4
    assert loss(*inputs(sample=True)).item() == pytest.approx(want.item(), rel=1e-12)


def test_the_mean_over_many_samples_is_the_closed_form():
    mean, log_variance, probs, *prior = inputs()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(20000, 6, 4, generator=generator, dtype=torch.float64)
    z = mean + (0.5 * log_variance).exp() * noise
    drawn = gmm_kl_loss(
        mean.repeat(20000, 1), log_variance.repeat(20000, 1), probs.repeat(20000, 1), *prior, sample=z.flatten(0, 1)
    )
    assert drawn.item() == pytest.approx(loss(*inputs()).item(), rel=0.02)


@pytest.mark.parametrize("sample", [False, True])
def test_gradcheck(sample):
    assert torch.autograd.gradcheck(loss, [t.requires_grad_() for t in inputs(sample=sample)])
    assert torch.autograd.gradgradcheck(loss, [t.requires_grad_() for t in inputs(2, 2, 2, sample=sample)])


def test_the_prior_itself_costs_nothing_and_all_else_something():
    _, log_variance, _, means, log_variances = inputs(3, 4, 3)
    one_hot = torch.eye(3, dtype=torch.float64)
    assert loss(means, log_variances, one_hot, means, log_variances).item() == pytest.approx(0, abs=1e-14)
    assert loss(means, log_variance, one_hot, means, log_variances) > 0
    assert loss(means, log_variances, one_hot.roll(1, 0), means, log_variances) > 0.1


@pytest.mark.parametrize("offset", [0.0, 1e3, -1e5])
@pytest.mark.parametrize("sharp", [0.0, -10.0])
def test_classes_far_from_the_origin_and_sharp_ones(offset, sharp):
    """Where expanded squares cancel: float32 would lose every digit."""
    tensors = list(inputs(9, 5, 4, torch.float32))
    tensors[0] += offset
    tensors[3] = tensors[3] * 0.01 + offset
    tensors[0][:4] = tensors[3]
    tensors[4] += sharp
    call = Sample(tuple(tensors))
    (got,), grads = gradients(loss, call)
    (want,), exact_grads = gradients(exact, call.with_tensors(torch.Tensor.double))
    assert got.item() == pytest.approx(want.item(), rel=TOLERANCE[torch.float32][0])
    for name, a, b in zip(NAMES, grads, exact_grads, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-6 * b.abs().max().item(), msg=name)


def test_a_class_without_probability_counts_for_nothing():
    mean, log_variance, probs, prior_means, prior_log_variances = inputs()
    probs = torch.cat([probs, torch.zeros(6, 2, dtype=torch.float64)], 1)
    far = torch.full((2, 4), 1e6, dtype=torch.float64)
    tensors = [mean, log_variance, probs, torch.cat([prior_means, far]), torch.cat([prior_log_variances, 0 * far])]
    tensors = [t.requires_grad_() for t in tensors]
    got = loss(*tensors)
    got.backward()
    assert got.item() == pytest.approx(loss(*inputs()).item(), rel=1e-12)
    assert all(t.grad.isfinite().all() for t in tensors)
    assert (tensors[3].grad[3:] == 0).all()


def test_narrow_and_wide_gaussians_stay_finite_in_float32():
    mean, log_variance, probs, means, log_variances = inputs(dtype=torch.float32)
    for low, high in ((-40.0, 40.0), (40.0, -40.0)):
        tensors = [t.requires_grad_() for t in (mean, 0 * log_variance + low, probs, means, 0 * log_variances + high)]
        tensors = [t.detach().requires_grad_() for t in tensors]
        got = loss(*tensors)
        got.backward()
        assert got.isfinite()
        assert all(t.grad.isfinite().all() for t in tensors)


def test_autocast_and_transforms():
    tensors = inputs(dtype=torch.float32)
    want = gradients(loss, Sample(tensors))
    with torch.autocast("cpu", torch.bfloat16):
        got = gradients(loss, Sample(tensors))
    assert all(torch.equal(a, b) for a, b in zip((*want[0], *want[1]), (*got[0], *got[1]), strict=True))
    stacked = torch.stack([tensors[0], tensors[0].flip(0)])
    mapped = torch.func.vmap(torch.func.grad(loss), in_dims=(0, None, None, None, None))(stacked, *tensors[1:])
    for i in range(2):
        torch.testing.assert_close(mapped[i], torch.func.grad(loss)(stacked[i], *tensors[1:]))


@pytest.mark.slow
def test_compile_fullgraph():
    tensors = inputs(dtype=torch.float32)
    got = gradients(torch.compile(lambda *t: loss(*t), fullgraph=True), Sample(tensors))
    want = gradients(loss, Sample(tensors))
    for a, b in zip((*want[0], *want[1]), (*got[0], *got[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("mean", torch.zeros(4), ValueError, r"'mean' must have shape \(B, d\)"),
        ("mean", torch.zeros(0, 4), ValueError, r"'mean' must have shape \(B, d\) with B, d >= 1"),
        ("log_variance", torch.zeros(6, 5), ValueError, r"'log_variance' must have shape \(6, 4\), got \(6, 5\)"),
        ("probs", torch.zeros(5, 3), ValueError, r"'probs' must have shape \(6, K\)"),
        ("probs", torch.zeros(6, 0), ValueError, r"'probs' must have shape \(6, K\) with K >= 1"),
        ("prior_means", torch.zeros(2, 4), ValueError, r"'prior_means' must have shape \(3, 4\)"),
        ("prior_log_variances", torch.zeros(3, 1), ValueError, r"'prior_log_variances' must have shape \(3, 4\)"),
        ("sample", torch.zeros(3, 4), ValueError, r"'sample' must have shape \(6, 4\)"),
        ("probs", torch.zeros(6, 3).long(), TypeError, "'probs' must be float16, bfloat16"),
        ("sample", [0.0], TypeError, "'sample' must be a torch.Tensor"),
        ("probs", torch.zeros(6, 3, device="meta"), ValueError, "'probs' must be on mean's device"),
    ],
)
def test_bad_arguments(name, value, error, message):
    tensors = dict(zip((*NAMES, "sample"), inputs(sample=True), strict=True))
    with pytest.raises(error, match=f"gmm_kl_loss: {message}"):
        gmm_kl_loss(**{**tensors, name: value})


def test_uniform_probabilities_average_the_classes():
    mean, log_variance, _, means, log_variances = inputs(1, 4, 3)
    each = [loss(mean, log_variance, torch.eye(3, dtype=torch.float64)[[y]], means, log_variances) for y in range(3)]
    uniform = torch.full((1, 3), 1 / 3, dtype=torch.float64)
    assert loss(mean, log_variance, uniform, means, log_variances).item() == pytest.approx(sum(each).item() / 3)
    assert not math.isclose(each[0].item(), each[1].item())
