"""dhog_loss: its parts, the hierarchy of its gradients, its edges, and errors."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.opspecs import rows

from deepclust_ext import dhog_loss, mi_loss, reference


@pytest.fixture
def probs(generator):
    return rows(generator, 4, 3, 25, 6)


def test_two_views_are_iic(generator):
    probs = rows(generator, 2, 1, 25, 6)
    for pooling in ("pooled", "mean"):
        result = dhog_loss(probs, pooling=pooling)
        torch.testing.assert_close(result.loss, mi_loss(probs[0, 0], probs[1, 0]))
        torch.testing.assert_close(result.pull[0], -mi_loss(probs[0, 0], probs[1, 0]))


def test_pooled_pull_is_the_mutual_information_of_all_ordered_pairs(probs):
    first = torch.cat([probs[a, 1] for a in range(4) for b in range(4) if a != b])
    second = torch.cat([probs[b, 1] for a in range(4) for b in range(4) if a != b])
    torch.testing.assert_close(dhog_loss(probs).pull[1], -mi_loss(first, second))


def test_push_is_between_heads_of_the_same_view_and_not_symmetrised(probs):
    push = dhog_loss(probs).push
    later, earlier = probs[:, 2].reshape(-1, 6), probs[:, 0].reshape(-1, 6)
    torch.testing.assert_close(push[2, 0], -mi_loss(later, earlier, symmetric=False))
    assert torch.equal(push, push.tril(-1))


def test_loss_is_put_together_from_pull_and_push(probs):
    for norm, divisors in (("index", (2, 3)), ("count", (1, 2))):
        result = dhog_loss(probs, alpha=0.7, push_norm=norm)
        push = result.push[1].sum() / divisors[0] + result.push[2].sum() / divisors[1]
        torch.testing.assert_close(result.loss, -result.pull.mean() + 0.7 * push)


def test_push_moves_the_later_head_only(probs):
    def grad(alpha):
        x = probs.clone().requires_grad_()
        dhog_loss(x, alpha=alpha).loss.backward()
        return x.grad

    difference = grad(0.5) - grad(0.0)
    assert not difference[:, 0].any()
    assert difference[:, 1].abs().max() > 1e-4
    assert difference[:, 2].abs().max() > 1e-4


def test_parts_are_detached(probs):
    result = dhog_loss(probs.requires_grad_())
    assert result.loss.requires_grad
    assert not result.pull.requires_grad
    assert not result.push.requires_grad


@pytest.mark.parametrize("pooling", ["pooled", "mean"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_degenerate_batches_stay_finite(pooling, dtype):
    one_hot = torch.eye(5, dtype=dtype).repeat(3, 2, 2, 1)
    collapsed = torch.zeros(3, 2, 10, 5, dtype=dtype)
    collapsed[..., 2] = 1
    for x in (
        one_hot,
        collapsed,
        torch.zeros(3, 2, 10, 5, dtype=dtype),
        torch.zeros(3, 2, 0, 5, dtype=dtype),
    ):
        x = x.clone().requires_grad_()
        result = dhog_loss(x, alpha=1.0, pooling=pooling)
        result.loss.backward()
        assert all(part.isfinite().all() for part in result)
        assert x.grad.isfinite().all()
    assert dhog_loss(one_hot).pull[0].item() == pytest.approx(math.log(5), abs=1e-6)


def test_nan_shows(probs):
    probs[1, 2, 3, 4] = float("nan")
    result = dhog_loss(probs)
    assert result.loss.isnan()
    assert result.pull.isnan().tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: dhog_loss(x.tolist()), TypeError, "'probs' must be a torch.Tensor"),
        (lambda x: dhog_loss(x.int()), TypeError, "'probs' must be float16"),
        (lambda x: dhog_loss(x[0]), ValueError, r"'probs' must have shape \(A, H, n, C\), got \(3, 25, 6\)"),
        (lambda x: dhog_loss(x[:1]), ValueError, "'probs' must hold at least two augmentations, got 1"),
        (lambda x: dhog_loss(x[:, :0]), ValueError, "at least one head and class"),
        (
            lambda x: dhog_loss(x, pooling="sum"),
            ValueError,
            "'pooling' must be one of 'pooled', 'mean', got 'sum'",
        ),
        (
            lambda x: dhog_loss(x, push_norm=1),
            ValueError,
            "'push_norm' must be one of 'index', 'count', got 1",
        ),
        (lambda x: dhog_loss(x, alpha=None), TypeError, "'alpha' must be a number, got None"),
        (lambda x: dhog_loss(x, lamb=math.inf), ValueError, "'lamb' must be finite, got inf"),
    ],
)
def test_errors_name_the_argument(probs, call, error, message):
    with pytest.raises(error, match=f"dhog_loss: .*{message}"):
        call(probs)


def test_nothing_of_size_pairs_n_c_is_allocated():
    """28 pairs of heads times 4 n C floats would be 2.4 GB here; probs and its gradient are 172 MB."""
    code = """
import resource, torch, deepclust_ext
x = torch.full((4, 8, 33_600, 20), 1 / 20).requires_grad_()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
deepclust_ext.dhog_loss(x).loss.backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(output) < 86 + 64


def test_memory_follows_the_joints():
    """With 60 x 27 MB, one copy of all joints for every view, it would not fit."""
    code = """
import torch, deepclust_ext
from support.fuzz import limit_memory
torch.set_num_threads(1)
limit_memory(400 * 2**20)
probs = torch.rand(60, 120, 1, 2, generator=torch.Generator().manual_seed(0)).softmax(-1).requires_grad_()
found = deepclust_ext.dhog_loss(probs, pooling="mean")
found.loss.backward()
print(bool(probs.grad.isfinite().all()))
try:
    deepclust_ext.dhog_loss(torch.full((2, 3000, 1, 3), 1 / 3))
except RuntimeError as error:
    print(error)
"""
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    ended = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
    assert ended.stdout.startswith("True\n"), ended.stderr[-2000:]
    assert re.search(r"no memory for \d+ MB|allocate memory", ended.stdout.splitlines()[1])


@pytest.mark.parametrize("pooling", ["pooled", "mean"])
def test_joints_so_large_that_few_tasks_run_at_once(pooling, generator):
    probs = rows(generator, 14, 24, 2, 100)
    got = dhog_loss(probs.float(), pooling=pooling)
    loss, _, push = reference.dhog_loss(probs, pooling=pooling)
    torch.testing.assert_close(got.loss.double(), loss, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got.push.double(), push, rtol=1e-4, atol=1e-5)


def test_each_of_many_joints_is_added_once():
    """A joint counted twice has the same information but half of the gradient; one turn does not hold all of these."""
    probs = rows(torch.Generator().manual_seed(0), 14, 24, 2, 100).float()

    def gradient(probs):
        probs = probs.clone().requires_grad_()
        dhog_loss(probs, pooling="mean", alpha=0.0).loss.backward()
        return probs.grad

    together = gradient(probs)
    for head in (0, 23):
        alone = gradient(probs[:, head : head + 1]) / 24
        torch.testing.assert_close(together[:, head : head + 1], alone, rtol=1e-4, atol=1e-7)
