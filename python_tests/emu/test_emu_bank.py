"""The memory bank's kernels on the emulator, against plain numpy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.emulator import SCHEDULES, load

emu = load()

BITS = "bfloat16"
DTYPES = [np.float32, np.float64, np.float16, BITS]


@pytest.fixture(autouse=True, params=SCHEDULES, ids=lambda s: f"{s[0]}-{s[1]}")
def schedule(request):
    emu.set_schedule(*request.param)
    yield
    emu.set_schedule("forward")


def stored(values: np.ndarray, dtype: Any) -> np.ndarray:
    if dtype == BITS:
        return emu.write_bfloat16(values.astype(np.float32)).reshape(values.shape)
    return values.astype(dtype)


def exact(values: np.ndarray) -> np.ndarray:
    if values.dtype == np.uint16:
        values = emu.read_bfloat16(values).reshape(values.shape)
    return values.astype(np.float64)


def unit(*shape: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng([seed, *shape]).standard_normal(shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def softmax_of(logits: np.ndarray, rows: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Log-sum-exp, probabilities, and their mean of `rows`."""
    top = logits.max()
    weights = np.exp(logits - top)
    return top + np.log(weights.sum()), weights / weights.sum(), weights @ rows / weights.sum()


def definition(
    v: np.ndarray, bank: np.ndarray, index: np.ndarray, neighbors: np.ndarray, temperature: float
) -> tuple[np.ndarray, ...]:
    """Nll (0 without an index), entropy, and their gradients, of arrays in float64."""
    nll, entropy = np.zeros(len(v)), np.zeros(len(v))
    nll_grad, entropy_grad = np.zeros(v.shape), np.zeros(v.shape)
    for i, logits in enumerate(v @ bank.T / temperature):
        chosen = sorted({int(row) for row in (index[i], *neighbors[i]) if row >= 0})
        if index[i] >= 0:
            whole, _, mean = softmax_of(logits, bank)
            part, _, own = softmax_of(logits[chosen], bank[chosen])
            nll[i], nll_grad[i] = whole - part, (mean - own) / temperature
        kept = np.arange(len(bank)) != index[i]
        if kept.any():
            whole, p, mean = softmax_of(logits[kept], bank[kept])
            shifted = logits[kept] - logits[kept].max()
            average = (p * shifted).sum()
            entropy[i] = whole - logits[kept].max() - average
            entropy_grad[i] = -(p * (shifted - average)) @ bank[kept] / temperature
    return nll, entropy, nll_grad, entropy_grad


def problem(queries: int, rows: int, depth: int, count: int, dtype: Any, *, near: float = 1.5) -> tuple[Any, ...]:
    """Unit rows; every query a mixture of its own row and noise; neighbours with copies, gaps and the index itself."""
    generator = np.random.default_rng([queries, rows, depth, count])
    bank = unit(rows, depth)
    index = generator.integers(rows, size=queries)
    index[-1:] = rows - 1
    v = near * bank[index] + unit(queries, depth, seed=1)
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    neighbors = generator.integers(-1, rows, size=(queries, count))
    if count > 2:
        neighbors[:, 1], neighbors[::2, 2] = neighbors[:, 0], index[::2]
    return stored(v, np.float64 if dtype == np.float64 else np.float32), stored(bank, dtype), index, neighbors


def close(got: np.ndarray, want: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=0, atol=tolerance * max(np.abs(want).max(), 1e-3))


def check(arrays: tuple[Any, ...], temperature: float, tolerance: float = 0.0) -> None:
    """In ranges of one tile, whose sums meet at the end, and of four, whose sums go on from tile to tile."""
    v, bank, index, neighbors = arrays
    tolerance = tolerance or (1e-12 if v.dtype == np.float64 else 2e-5)
    want = definition(v.astype(np.float64), exact(bank), index, neighbors, temperature)
    for least_split in (64, 0) if len(bank) > 64 else (0,):
        got = emu.bank_nll_entropy(v, bank, index, neighbors, temperature, True, True, True, least_split)
        for a, b in zip(got, want, strict=True):
            assert a.dtype == v.dtype
            close(a, b, tolerance)


# (queries, rows, depth, neighbours): around the bounds of a tile, a slab of depth, a panel, a range of the bank; more
# neighbours than lanes; one of everything.
SIZES = [
    (5, 70, 18, 0),
    (67, 131, 5, 3),
    (1, 1, 1, 0),
    (3, 2, 1, 1),
    (2, 64, 130, 2),
    (64, 65, 16, 1),
    (2, 200, 64, 40),
    (3, 129, 260, 4),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d if d == BITS else d.__name__)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_matches_the_definition(size, dtype):
    check(problem(*size, dtype), 0.1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda d: d.__name__)
def test_what_is_asked_for_does_not_depend_on_the_rest(dtype):
    v, bank, index, neighbors = problem(9, 150, 20, 3, dtype)
    arrays = (v, bank, index, neighbors, 0.1)
    whole = emu.bank_nll_entropy(*arrays, True, True, True, 64)
    for nll, entropy, gradient in [(True, False, True), (False, True, True), (True, True, False), (False, True, False)]:
        got = emu.bank_nll_entropy(*arrays, nll, entropy, gradient, 64)
        asked = (nll, entropy, nll and gradient, entropy and gradient)
        for part, want, there in zip(got, whole, asked, strict=True):
            assert (part is not None) == there
            if there:
                assert np.array_equal(part, want)


@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=lambda d: d.__name__)
def test_a_cold_softmax(dtype):
    """Temperature 0.01: logits up to 100, whose exponentials no float16 and hardly a float32 holds."""
    check(problem(6, 140, 24, 2, dtype), 0.01, tolerance=2e-4)


def test_a_row_that_its_query_does_not_resemble():
    """Log-odds of 300, beyond what a float32 holds as an exponential: the nll is finite."""
    v, bank, index, neighbors = problem(6, 140, 24, 1, np.float32, near=9.0)
    index = (index + 1) % 140
    check((v, bank, index, np.full_like(neighbors, -1)), 0.003, tolerance=2e-4)


def test_logits_far_below_0():
    """Where e^0 would be out of sight."""
    v, bank, index, neighbors = problem(5, 140, 24, 2, np.float32)
    bank[:] = v[0] + 0.05 * bank
    v[:] = -v[0] + 0.05 * v
    check((v, bank, index, neighbors), 0.004, tolerance=2e-4)


def test_a_probability_that_comes_near_1():
    """The nll and its gradient keep their digits where 1 - p is below the rounding of p."""
    v, bank, index, _ = problem(6, 140, 24, 0, np.float32, near=50.0)
    got = emu.bank_nll_entropy(v, bank, index, np.zeros((6, 0), np.int64), 0.02, True, True, True, 64)
    wide = (v.astype(np.float64), exact(bank), index, np.zeros((6, 0), np.int64))
    logits = wide[0] @ wide[1].T / 0.02
    own = logits[np.arange(6), index]
    rest = np.where(np.arange(140) == index[:, None], -np.inf, logits - own[:, None])
    want = np.log1p(np.exp(rest).sum(1))
    assert (want < 1e-6).any()
    np.testing.assert_allclose(got[0], want, rtol=1e-4)
    p = np.exp(rest) / (1 + np.exp(rest).sum(1, keepdims=True))
    gradient = (p @ wide[1] - p.sum(1, keepdims=True) * wide[1][index]) / 0.02
    for row, exactly in zip(got[2], gradient, strict=True):
        np.testing.assert_allclose(row, exactly, rtol=0, atol=1e-4 * np.abs(exactly).max())
    _, entropy, _, entropy_grad = definition(*wide, 0.02)
    close(got[1], entropy, 1e-4)
    close(got[3], entropy_grad, 1e-4)


def test_identical_rows_and_sets_that_are_everything():
    bank = np.repeat(unit(1, 7), 90, axis=0).astype(np.float32)
    index, neighbors = np.array([3, 89]), np.array([np.arange(90), np.full(90, -1)])
    nll, entropy, nll_grad, entropy_grad = emu.bank_nll_entropy(
        bank[:2], bank, index, neighbors, 0.1, True, True, True, 64
    )
    np.testing.assert_allclose(nll, [0, np.log(90)], atol=1e-6)
    np.testing.assert_allclose(entropy, np.log([89, 89]), atol=1e-6)
    np.testing.assert_allclose(nll_grad, 0, atol=1e-5)
    np.testing.assert_allclose(entropy_grad, 0, atol=1e-5)
    assert nll[0] == 0


def test_a_bank_of_one_row_leaves_nothing_to_be_uncertain_about():
    got = emu.bank_nll_entropy(*problem(2, 1, 6, 2, np.float32), 0.1, True, True, True, 64)
    assert all(not part.any() for part in got)


def test_without_an_index_the_entropy_is_that_of_all_rows():
    v, bank, _, _ = problem(7, 150, 12, 0, np.float32)
    index, neighbors = np.array([-1, 5, -1, 7, 149, -1, 0]), np.zeros((7, 0), np.int64)
    _, entropy, _, gradient = emu.bank_nll_entropy(v, bank, index, neighbors, 0.1, False, True, True, 64)
    _, want, _, want_grad = definition(v.astype(np.float64), exact(bank), index, neighbors, 0.1)
    close(entropy, want, 2e-5)
    close(gradient, want_grad, 2e-5)


def test_of_no_queries():
    empty = np.zeros((0, 4), np.float32)
    index, neighbors = np.zeros(0, np.int64), np.zeros((0, 2), np.int64)
    got = emu.bank_nll_entropy(empty, unit(9, 4).astype(np.float32), index, neighbors, 0.1, True, True, True, 64)
    assert [part.shape for part in got] == [(0,), (0,), (0, 4), (0, 4)]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_shows(bad):
    v, bank, index, neighbors = problem(5, 140, 8, 1, np.float32)
    v[2, 3] = bad
    got = emu.bank_nll_entropy(v, bank, index, neighbors, 0.1, True, True, True, 64)
    for part in got:
        finite = np.isfinite(part.reshape(5, -1)).all(1)
        assert finite.tolist() == [True, True, False, True, True]
    bank[77, 1] = bad
    v[2, 3] = 0
    index[:] = 3
    for part in emu.bank_nll_entropy(v, bank, index, neighbors, 0.1, True, True, True, 64):
        assert not np.isfinite(part).any() or bad == np.inf


def test_an_index_beyond_the_bank_is_found_and_never_read():
    v, bank, index, neighbors = problem(70, 140, 8, 1, np.float32)
    for value in (140, 1 << 40, -5, -1):
        wrong, others = index.copy(), neighbors.copy()
        wrong[66], others[68, 0] = value, abs(value) + 140
        assert emu.find_bad_index(wrong, 0, 140) == 66
        assert emu.find_bad_index(index, 0, 140) == -1
        for part in emu.bank_nll_entropy(v, bank, wrong, others, 0.1, True, True, True, 64):
            clean = np.isfinite(part.reshape(70, -1)).all(1)
            assert np.flatnonzero(~clean).tolist() == [66, 68]
    many = np.zeros(600, np.int64)
    many[300], many[599] = -1, 7
    assert emu.find_bad_index(many, 0, 7) == 300
    assert emu.find_bad_index(many, -1, 7) == 599
    assert emu.find_bad_index(many, -1, 8) == -1


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d if d == BITS else d.__name__)
def test_inputs_that_start_on_no_bound_give_the_same_bits(dtype):
    arrays = (*problem(5, 140, 20, 2, dtype), 0.1, True, True, True, 64)
    want = emu.bank_nll_entropy(*arrays)
    emu.set_input_offset(1)
    try:
        got = emu.bank_nll_entropy(*arrays)
    finally:
        emu.set_input_offset(0)
    assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))


def updated(bank: np.ndarray, index: np.ndarray, features: np.ndarray, momentum: float, dtype: Any) -> np.ndarray:
    bank = bank.copy()
    for row, feature in zip(index, features.astype(np.float64), strict=True):
        mixed = momentum * exact(bank[row]) + (1 - momentum) * feature
        top = np.abs(mixed).max()
        mixed = mixed / (top or 1)
        bank[row] = stored(mixed / (np.linalg.norm(mixed) or 1), dtype)
    return bank


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d if d == BITS else d.__name__)
@pytest.mark.parametrize("wide", [False, True])
def test_an_update_applies_duplicates_in_batch_order(dtype, wide):
    generator = np.random.default_rng(0)
    bank = stored(unit(11, 37), dtype)
    index = generator.integers(10, size=75)
    index[40] = 10  # one that comes once
    kind = np.float64 if wide or dtype == np.float64 else np.float32
    features = unit(75, 37, seed=2).astype(kind)
    for momentum in (0.5, 0.0, 1.0, 0.9):
        want = updated(bank, index, features, momentum, dtype)
        got = emu.bank_update(bank, index, features, momentum)
        # The order of the squares' sum may turn the last bit of an entry that lies between two stored numbers.
        steps = 1e-14 if dtype == np.float64 else 3e-7 if dtype == np.float32 else 2e-3 if dtype == np.float16 else 1e-2
        close(exact(got), exact(want), steps)
        assert np.array_equal(got, emu.bank_update(bank, index, features, momentum, True))
        one_by_one = bank
        for i in range(75):
            one_by_one = emu.bank_update(one_by_one, index[i : i + 1], features[i : i + 1], momentum)
        assert np.array_equal(got, one_by_one)


def test_an_update_keeps_zeros_and_survives_extremes():
    bank = np.zeros((5, 3), np.float32)
    features = np.array([[0, 0, 0], [3e38, 3e38, 0], [0, 3e-42, 4e-42], [1, np.nan, 0]], np.float32)
    got = emu.bank_update(bank, np.array([0, 1, 2, 3]), features, 0.0)
    assert not got[0].any()
    np.testing.assert_allclose(got[1], [np.sqrt(0.5), np.sqrt(0.5), 0], rtol=1e-6)
    np.testing.assert_allclose(got[2], [0, 0.6, 0.8], rtol=1e-2)
    assert np.isnan(got[3]).all()
    assert not got[4].any()
    # An index beyond the bank writes nothing; an empty batch is none.
    full = unit(4, 3).astype(np.float32)
    after = emu.bank_update(full, np.array([-1, 4, 1 << 40, 2]), unit(4, 3, seed=5).astype(np.float32), 0.5)
    assert np.array_equal(after[[0, 1, 3]], full[[0, 1, 3]])
    assert not np.array_equal(after[2], full[2])
    assert np.array_equal(emu.bank_update(full, np.zeros(0, np.int64), np.zeros((0, 3), np.float32), 0.5), full)
