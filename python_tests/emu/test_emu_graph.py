"""affinity_weights and initial_clusters on the emulator, on numpy alone so that the sanitizers can watch them."""

from __future__ import annotations

import numpy as np
import pytest
from support.emulator import SCHEDULES, load

emu = load()


@pytest.fixture(autouse=True, params=SCHEDULES, ids=lambda s: f"{s[0]}-{s[1]}")
def schedule(request):
    emu.set_schedule(*request.param)
    yield
    emu.set_schedule("forward")


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (300, 20), (4097, 1), (0, 4), (5, 0)], ids=str)
def test_affinity_weights(shape, dtype):
    distances = np.random.default_rng(1).chisquare(3, shape).astype(dtype)
    for a in (1.0, 0.3):
        weights, sigma2, bad = emu.affinity_weights(distances, a)
        want = a * distances.astype(np.float64).mean() if distances.size else 0.0
        np.testing.assert_allclose(sigma2[0], want, rtol=1e-13 if dtype == np.float64 else 1e-7)
        exponent = distances.astype(np.float64) / (want or 1.0)
        np.testing.assert_allclose(weights, np.exp(-exponent), rtol=0, atol=1e-13 if dtype == np.float64 else 2e-7)
        assert bad == 0


def test_equal_points_have_weight_one():
    weights, sigma2, bad = emu.affinity_weights(np.zeros((40, 3), np.float32), 1.0)
    assert (weights == 1).all()
    assert sigma2[0] == 0
    assert bad == 0
    # The mean of one point apart from many copies is below float32's smallest number, and still no 0.
    distances = np.zeros((5000, 1), np.float32)
    distances[4999] = 1e-45
    weights, _, bad = emu.affinity_weights(distances, 1.0)
    assert (weights[:4999] == 1).all()
    assert weights[4999] == 0
    assert bad == 0


@pytest.mark.parametrize("value", [-1e-30, np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 77, 4999])
def test_distances_that_are_none_are_found(value, place):
    distances = np.ones(5000, np.float32)
    distances[place] = value
    assert emu.affinity_weights(distances.reshape(-1, 1), 1.0)[2] == 1


def components(first: np.ndarray) -> np.ndarray:
    """By union-find, numbered by first member."""
    parent = list(range(len(first)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for i, j in enumerate(first):
        a, b = sorted((root(i), root(int(j))))
        parent[b] = a
    roots = [root(i) for i in range(len(first))]
    names = {r: name for name, r in enumerate(sorted(set(roots)))}
    return np.array([names[r] for r in roots], np.int64)


def graphs() -> dict[str, np.ndarray]:
    random, n = np.random.default_rng(0), 700
    line = np.arange(n)
    return {
        "random": random.integers(0, n, n),
        "few": random.integers(0, 3, n),
        "own": line,
        "down": np.maximum(line - 1, 0),
        "up": np.minimum(line + 1, n - 1),
        "circle": (line + 1) % n,
        "star": np.full(n, n - 1),
        "pairs": line ^ 1,
        "far pairs": n - 1 - line,
        "near": np.clip(line + random.integers(-2, 3, n), 0, n - 1),
        "chunks": np.clip(np.arange(2500) + random.integers(-3, 4, 2500), 0, 2499),
        "one": np.zeros(1, np.int64),
        "none": np.zeros(0, np.int64),
    }


@pytest.mark.parametrize("name", graphs())
def test_initial_clusters(name):
    first = graphs()[name]
    indices = np.stack([first, first[::-1]], axis=1)  # only the first column counts
    labels, bad_row = emu.initial_clusters(indices)
    assert bad_row == -1
    assert np.array_equal(labels, components(first))


@pytest.mark.parametrize("entry", [-1, 700, 2**40])
def test_the_first_row_that_is_no_point_is_named(entry):
    indices = np.arange(700).reshape(-1, 1)
    indices[[311, 312, 650]] = entry
    assert emu.initial_clusters(indices)[1] == 311
