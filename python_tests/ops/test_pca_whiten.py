"""pca_whiten: the reference, subspaces instead of signs, degenerate covariances, errors."""

from __future__ import annotations

import math

import pytest
import torch

from deepclust_ext import pca_whiten, reference


def skewed(generator, n, d, dtype=torch.float64):
    """Rows of falling variance in a rotated basis, off the origin."""
    rotation = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64)).Q
    x = torch.randn(n, d, generator=generator, dtype=torch.float64) * torch.linspace(3, 0.3, d, dtype=torch.float64)
    return (x @ rotation + 5).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("l2", [False, True])
@pytest.mark.parametrize(("n", "d", "count"), [(200, 9, 4), (200, 9, 9), (7, 30, 5), (5000, 3, 2), (50, 1, 1)])
def test_matches_reference_up_to_signs(n, d, count, l2, dtype, generator):
    x = skewed(generator, n, d, dtype)
    features, transform = pca_whiten(x, count, l2=l2)
    exact = reference.pca_whiten(x.double(), count, l2=l2)
    assert features.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    tolerance = 1e-9 if dtype == torch.float64 else 2e-4
    sign = (features.double() * exact).sum(0).sign()
    torch.testing.assert_close(features.double(), exact * sign, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(transform.components @ transform.components.T, torch.eye(count, dtype=features.dtype))


def test_unit_variance_and_unit_length(generator):
    x = skewed(generator, 3000, 12)
    features, _ = pca_whiten(x, 6, eps=0.0, l2=False)
    torch.testing.assert_close(features.T.cov(), torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-10)
    torch.testing.assert_close(features.mean(0), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-10)
    features, _ = pca_whiten(x, 6)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(3000, dtype=torch.float64))


def test_eps_is_relative_to_the_largest_eigenvalue(generator):
    x = skewed(generator, 500, 5)
    for eps in (0.0, 0.5):
        variance = torch.linalg.eigvalsh(x.T.cov()).flip(0)
        _, transform = pca_whiten(x, 5, eps=eps)
        torch.testing.assert_close(transform.scale, (variance + eps * variance[0]).rsqrt(), rtol=1e-9, atol=0)
    first, second = (pca_whiten(x * s, 3)[0] for s in (1.0, 1000.0))
    torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", [(60, 10), (8, 30)])
@pytest.mark.parametrize("eps", [0.0, 1e-5])
def test_rank_below_the_number_of_components(shape, eps, generator):
    basis = torch.randn(3, shape[1], generator=generator, dtype=torch.float64)
    x = torch.randn(shape[0], 3, generator=generator, dtype=torch.float64) @ basis
    features, transform = pca_whiten(x, 7, eps=eps, l2=False)
    assert features.isfinite().all()
    assert features[:, 3:].abs().max() < 1e-4  # not noise blown up to unit variance
    torch.testing.assert_close(
        transform.components @ transform.components.T, torch.eye(7, dtype=torch.float64), rtol=0, atol=1e-9
    )
    # The subspace is that of the data.
    projected = basis @ transform.components[:3].T @ transform.components[:3]
    torch.testing.assert_close(projected, basis, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("shape", [(20, 4), (3, 9)])
@pytest.mark.parametrize("value", [0.0, 2.5])
@pytest.mark.parametrize("eps", [0.0, 1e-5])
def test_constant_features_give_zeros(shape, value, eps):
    features, transform = pca_whiten(torch.full(shape, value), 2, eps=eps)
    assert not features.any()
    assert not transform.scale.any()
    assert not transform(torch.full(shape, value)).any()


def test_a_row_at_the_mean_stays_zero():
    features, _ = pca_whiten(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]), 1)
    assert features.flatten().abs().tolist() == [1.0, 1.0, 0.0]


def test_signs_and_the_map(generator):
    x = skewed(generator, 9000, 6, torch.float32)
    features, transform = pca_whiten(x, 4)
    largest = transform.components.abs().argmax(1, keepdim=True)
    assert (transform.components.gather(1, largest) > 0).all()
    assert torch.equal(transform(x), features)
    flipped = pca_whiten(x.flip(0), 4)[1]
    torch.testing.assert_close(flipped.components, transform.components, rtol=0, atol=1e-5)
    assert transform(x[:0]).shape == (0, 4)


def test_strides_and_detachment(generator):
    x = skewed(generator, 100, 6, torch.float32)
    want = pca_whiten(x, 3)[0]
    strided = x.T.contiguous().T.requires_grad_()
    torch.testing.assert_close(pca_whiten(strided, 3)[0], want)
    assert not pca_whiten(strided, 3)[0].requires_grad


def test_autocast_changes_nothing(generator):
    x = skewed(generator, 100, 6, torch.float32)
    want = pca_whiten(x, 3)[0]
    with torch.autocast("cpu", torch.bfloat16):
        features, transform = pca_whiten(x, 3)
        assert torch.equal(features, want)
        assert torch.equal(transform(x), want)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: pca_whiten(x.tolist(), 1), TypeError, r"pca_whiten: 'x' must be a torch.Tensor, got list"),
        (lambda x: pca_whiten(x[0], 1), ValueError, r"pca_whiten: 'x' must have shape \(n, d\) .* got \(4,\)"),
        (lambda x: pca_whiten(x[:1], 1), ValueError, r"with n >= 2 and d >= 1, got \(1, 4\)"),
        (lambda x: pca_whiten(x, 0), ValueError, r"pca_whiten: 'n_components' must be at least 1, got 0"),
        (lambda x: pca_whiten(x, 5), ValueError, r"'n_components' must be at most min\(n, d\) = 4, got 5"),
        (lambda x: pca_whiten(x[:3], 4), ValueError, r"'n_components' must be at most min\(n, d\) = 3, got 4"),
        (lambda x: pca_whiten(x, 2.0), TypeError, r"'n_components' must be a whole number, got 2.0"),
        (lambda x: pca_whiten(x, 2, eps=-1), ValueError, r"pca_whiten: 'eps' must be at least 0, got -1.0"),
        (lambda x: pca_whiten(x, 2, l2=None), TypeError, r"pca_whiten: 'l2' must be True or False, got None"),
        (lambda x: pca_whiten(x * math.nan, 2), ValueError, r"'x' must be finite, got NaN or infinity in row 0"),
        (
            lambda x: pca_whiten(x, 2)[1](x.log().neg()),
            ValueError,
            r"'x' must be finite, got NaN or infinity in row 0; drop",
        ),
        (
            lambda x: pca_whiten(x.double() * 1e200, 2),
            ValueError,
            r"must have variances within the range of torch.float64",
        ),
        (lambda x: pca_whiten(x.double().T[:3] * 1e200, 2), ValueError, r"variances within .* got values up to"),
        (
            lambda x: pca_whiten(x.double() * 1e305, 2),
            ValueError,
            r"got values up to 5.29e\+307; scale it by a constant",
        ),
        (lambda x: pca_whiten(x * 1e-43, 2), ValueError, r"must have variances within the range of torch.float32"),
        (lambda x: pca_whiten(x, 2)[1](x[:, :3]), ValueError, r"'x' must have shape \(N, 4\), got \(6, 3\)"),
    ],
)
def test_errors_name_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call(torch.arange(24.0).view(6, 4) ** 2)


# LAPACK's eigenvectors differ with its threads from 64 columns on, the BLAS's products at odd sizes.
@pytest.mark.parametrize(("n", "d", "count"), [(5000, 100, 100), (4500, 33, 33), (70, 300, 60)])
def test_threads_change_no_bit(n, d, count, generator):
    before, x = torch.get_num_threads(), skewed(generator, n, d, torch.float32)
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            features, transform = pca_whiten(x, count)
            found.append((features, transform.components, transform.scale, transform(x[:9])))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, first) for other in found for one, first in zip(other, found[0], strict=True))
