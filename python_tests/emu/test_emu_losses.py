"""The mutual-information kernels on the emulator, on numpy alone so that the sanitizers can watch them.

The same kernels against the torch reference, for every sample of the ops: test_cuda_emulated.py.
"""

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


def probabilities(*shape: int, dtype: type = np.float32) -> np.ndarray:
    scores = np.exp(2 * np.random.default_rng(sum(shape)).standard_normal(shape))
    return (scores / scores.sum(-1, keepdims=True)).astype(dtype)


def information(joint: np.ndarray, lamb: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """(loss, gradient) of one joint, in float64."""
    total = joint.sum()
    p = joint / total
    rows, cols = p.sum(1, keepdims=True), p.sum(0, keepdims=True)
    value = np.log(p) - lamb * np.log(rows) - lamb * np.log(cols)
    loss = -(p * value).sum()
    return loss, (-value - loss) / total


def close(got: np.ndarray, want: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(got.astype(np.float64), want, rtol=0, atol=tolerance * np.abs(want).max() + 1e-7)


# (batch, n, C, D): odd sizes, each around a bound: one tile of 32 and of 64, vectors of four, three chunks, more than
# one block of a joint's rows, cuBLAS.
SIZES = [
    (2, 7, 3, 4),
    (1, 33, 32, 31),
    (1, 300, 65, 40),
    (2, 130, 36, 68),
    (1, 261, 5, 5),
    (1, 5, 300, 270),
    (1, 1, 1, 1),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16], ids=lambda d: d.__name__)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_mi_loss(size, dtype):
    batch, n, rows, cols = size
    p, q = probabilities(batch, n, rows, dtype=dtype), probabilities(batch, n, cols, dtype=dtype)
    upstream = np.arange(2, 2 + batch).astype(np.float64 if dtype == np.float64 else np.float32)
    loss, joint_grad = emu.mi_loss(p, q, 1.3, False)
    grad_p, grad_q = emu.mi_loss_backward(upstream, p, q, joint_grad, True, True)
    half = dtype == np.float16
    for b in range(batch):
        x, y = p[b].astype(np.float64), q[b].astype(np.float64)
        want, gradient = information(x.T @ y, 1.3)
        np.testing.assert_allclose(loss[b], want, atol=1e-5)
        close(joint_grad[b], gradient, 1e-4)
        close(grad_p[b], upstream[b] * y @ gradient.T, 2e-3 if half else 2e-4)
        close(grad_q[b], upstream[b] * x @ gradient, 2e-3 if half else 2e-4)


def test_mi_loss_gives_the_gradients_that_are_needed():
    p = probabilities(1, 40, 6)
    loss, joint_grad = emu.mi_loss(p, p, 1.0, True)
    both = emu.mi_loss_backward(loss, p, p, joint_grad, True, True)
    only_p, none = emu.mi_loss_backward(loss, p, p, joint_grad, True, False)
    also_none, only_q = emu.mi_loss_backward(loss, p, p, joint_grad, False, True)
    assert none is None
    assert also_none is None
    assert np.array_equal(only_p, both[0])
    assert np.array_equal(only_q, both[1])


@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=lambda d: d.__name__)
@pytest.mark.parametrize("width", [64, 36])
def test_inputs_that_start_on_no_bound_give_the_same_bits(width, dtype):
    """Through vectors of four, and then without."""

    def results() -> list[np.ndarray]:
        p, probs = probabilities(1, 70, width, dtype=dtype), probabilities(2, 2, 9, width, dtype=dtype)
        loss, joint_grad = emu.mi_loss(p, p, 1.0, True)
        grads = emu.mi_loss_backward(loss, p, p, joint_grad, True, True)
        return [loss, joint_grad, *grads, *emu.dhog_loss(probs, 0.5, True, True, 1.0)]

    want = results()
    emu.set_input_offset(1)
    try:
        got = results()
    finally:
        emu.set_input_offset(0)
    assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 0, 3)], ids=str)
def test_mi_loss_of_nothing(shape):
    empty = np.zeros(shape, np.float32)
    loss, joint_grad = emu.mi_loss(empty, empty, 1.0, True)
    assert np.array_equal(loss, np.zeros(shape[0], np.float32))
    assert np.array_equal(joint_grad, np.zeros((shape[0], 3, 3), np.float32))
    assert emu.mi_loss_backward(loss, empty, empty, joint_grad, True, True)[0].shape == shape


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("shape", [(2, 1, 5, 3), (3, 3, 37, 33), (4, 2, 150, 4), (3, 2, 9, 130)], ids=str)
def test_dhog_loss(shape, pooled):
    views, heads = shape[:2]
    probs = probabilities(*shape)
    z = probs.astype(np.float64)
    loss, pull, push, pull_grad, push_grad = emu.dhog_loss(probs, 0.5, pooled, True, 1.2)
    pairs = [(a, b) for a in range(views) for b in range(a + 1, views)]
    want = 0.0
    for i in range(heads):
        joints = [z[a, i].T @ z[b, i] for a, b in pairs]
        joints = [sum(joints)] if pooled else joints
        found = [information((joint + joint.T) / 2, 1.2) for joint in joints]
        np.testing.assert_allclose(pull[i], -np.mean([f[0] for f in found]), atol=1e-5)
        for grad, (_, gradient) in zip(pull_grad[i], found, strict=True):
            close(grad, gradient / (heads * len(joints)), 1e-4)
        want += np.mean([f[0] for f in found]) / heads
        for j in range(i):
            value, gradient = information(sum(z[a, i].T @ z[a, j] for a in range(views)))
            np.testing.assert_allclose(push[i, j], -value, atol=1e-5)
            close(push_grad[i, j], -0.5 / (i + 1) * gradient, 1e-4)
            want -= 0.5 / (i + 1) * value
    np.testing.assert_allclose(loss, want, atol=1e-5)
    assert np.array_equal(push, np.tril(push, -1))
    assert not push_grad[~np.tri(heads, k=-1, dtype=bool)].any()

    grad = emu.dhog_loss_backward(np.full((), 2, np.float32), probs, pull_grad, push_grad, pooled)
    pair_of = {pair: 0 if pooled else index for index, pair in enumerate(pairs)}
    for a in range(views):
        for i in range(heads):
            others = [b for b in range(views) if b != a]
            rows = sum(z[b, i] @ pull_grad[i, pair_of[min(a, b), max(a, b)]].astype(np.float64) for b in others)
            rows = rows + sum(z[a, j] @ push_grad[i, j].T.astype(np.float64) for j in range(i))
            close(grad[a, i], 2 * rows, 1e-5)


def test_float16_is_read_and_written_as_numpy_does():
    stored = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    values = emu.read_float16(stored)
    np.testing.assert_array_equal(values, stored.astype(np.float32))
    finite = values[np.isfinite(values)]
    near = [finite * np.float32(factor) for factor in (1, 1 + 2.0**-11, 1.0004)]
    between = np.concatenate([*near, [1e-8, 65519, 65520, np.inf, -np.inf]]).astype(np.float32)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(emu.write_float16(between), between.astype(np.float16))
    assert np.isnan(emu.write_float16(np.float32([np.nan]))).all()


def test_bfloat16_is_the_nearest_float_of_16_bits():
    stored = np.arange(1 << 16, dtype=np.uint16)
    values = emu.read_bfloat16(stored)
    finite = np.isfinite(values)
    assert np.array_equal(emu.write_bfloat16(values[finite]), stored[finite])
    assert np.isnan(emu.read_bfloat16(emu.write_bfloat16(values[np.isnan(values)]))).all()
    one, above = np.uint32(0x3F800000), np.uint32(0x3F818000)  # exactly between two: to the even one
    ties = np.array([one + 0x8000, above, one + 0x8001, one + 0x7FFF], np.uint32).view(np.float32)
    assert emu.write_bfloat16(ties).tolist() == [0x3F80, 0x3F82, 0x3F81, 0x3F80]
