"""jule_loss's kernels on the emulator, on numpy alone so that the sanitizers can watch them.

The same kernels against the torch reference, for every sample of the op: test_cuda_emulated.py.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from support.emulator import SCHEDULES, load

emu = load()
MASK = 2**64 - 1


@pytest.fixture(autouse=True, params=SCHEDULES, ids=lambda s: f"{s[0]}-{s[1]}")
def schedule(request):
    emu.set_schedule(*request.param)
    yield
    emu.set_schedule("forward")


def mixed(word: int) -> int:
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & MASK
    word = (word ^ word >> 27) * 0x94D049BB133111EB & MASK
    return word ^ word >> 31


def negatives_of(labels: np.ndarray, seed: int, anchor: int, positive: int, k: int) -> list[int]:
    """Floyd's algorithm over the samples of another label, ordered by label and index."""
    others = [int(j) for j in np.argsort(labels, kind="stable") if labels[j] != labels[anchor]]
    key = mixed(mixed(seed) + anchor * len(labels) + positive & MASK)
    ranks: list[int] = []
    for i in range(k):
        last = len(others) - k + i
        uniform = (mixed(key + (i + 1) * 0x9E3779B97F4A7C15 & MASK) >> 11) * 2.0**-53
        rank = min(last, int(uniform * (last + 1)))
        ranks.append(last if rank in ranks else rank)
    return [others[rank] for rank in ranks]


def exact(z: np.ndarray, labels: np.ndarray, seed: int, gamma: float, margin: float, most: int):
    """Loss and gradient in float64, triplet by triplet."""
    z = z.astype(np.float64)
    k = max(0, min(most, len(np.unique(labels)) - 1))
    pairs = [(a, p) for a, p in combinations(range(len(z)), 2) if labels[a] == labels[p]] if k else []
    loss, grad, triplets = 0.0, np.zeros_like(z), max(1, len(pairs) * k)
    for a, p in pairs:
        for n in negatives_of(labels, seed, a, p, k):
            near, far = z[a] - z[p], z[a] - z[n]
            excess = gamma * near @ near - far @ far + margin
            if excess > 0:
                loss += excess
                grad[a] += 2 * (gamma * near - far)
                grad[p] -= 2 * gamma * near
                grad[n] += 2 * far
    return loss / triplets, grad / triplets


# (B, d, labels, n_negatives): one block of pairs and several, an odd warp, more than a warp of negatives, more columns
# than a block has threads, more samples than that, as many negatives as are asked for in every warp of a block, no
# triplets of either kind, nobody.
SIZES = [
    (20, 3, 4, 20),
    (33, 5, 30, 2),
    (50, 2, 45, 40),
    (24, 300, 5, 4),
    (270, 4, 90, 3),
    (30, 3, 2, 1),
    (9, 3, 1, 5),
    (9, 3, 1000, 5),
    (1, 3, 3, 5),
    (0, 3, 3, 5),
]


# The largest in one dtype: its loops over samples are the same in all.
CASES = [
    (size, dtype)
    for size in SIZES
    for dtype in (np.float32, np.float64, np.float16)
    if size[0] < 256 or dtype == np.float32
]


@pytest.mark.parametrize(("size", "dtype"), CASES, ids=lambda value: getattr(value, "__name__", str(value)))
def test_jule_loss(size, dtype):
    n, d, clusters, most = size
    random = np.random.default_rng(n)
    z = (random.standard_normal((n, d)) / np.sqrt(d)).astype(dtype)
    labels = np.arange(n) if clusters == 1000 else random.integers(-3, clusters - 3, n)
    for gamma, seed in ((2.0, 5), (0.5, 2**62 + 77)):
        want, want_grad = exact(z, labels, seed, gamma, 0.2, most)
        loss, grad = emu.jule_loss(z, labels, np.array([seed]), gamma, 0.2, most)
        tolerance = 1e-12 if dtype == np.float64 else 2e-6
        np.testing.assert_allclose(loss[0], want, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(grad, want_grad, rtol=0, atol=20 * tolerance * np.abs(want_grad).max(initial=1e-9))


def test_inputs_that_start_on_no_bound_give_the_same_bits():
    random = np.random.default_rng(0)
    z, labels = random.standard_normal((40, 7)).astype(np.float16), random.integers(0, 6, 40)
    want = emu.jule_loss(z, labels, np.array([3]), 1.0, 0.2, 20)
    emu.set_input_offset(1)
    try:
        got = emu.jule_loss(z, labels, np.array([3]), 1.0, 0.2, 20)
    finally:
        emu.set_input_offset(0)
    assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))


def test_a_triplet_at_zero_passes_no_gradient():
    z = np.array([[0.0], [1.0], [-1.0]], np.float32)
    loss, grad = emu.jule_loss(z, np.array([0, 0, 1]), np.array([3]), 1.0, 0.0, 20)
    assert loss[0] == 0
    assert not grad.any()


def test_nan_shows():
    z = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)
    z[4, 1] = np.nan
    loss, grad = emu.jule_loss(z, np.arange(12) % 3, np.array([3]), 1.0, 0.2, 20)
    assert np.isnan(loss).all()
    assert np.isnan(grad).any()
